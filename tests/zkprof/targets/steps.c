/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * steps.c - call frame information written by hand, and the caller that zkprof
 * finds by it: every instruction and operation, every way to write a pointer,
 * and what is refused.  Says which step came to something else, and ends
 * with 1.
 *
 * The function is [START, END), the stack 64 words at STACK, word i being
 * WORD(i); before a step the stack pointer is STACK, the frame pointer
 * STACK + 64, register i of the others 0x100 i.
 */
#include "cfi.h"

#include <stdio.h>
#include <string.h>

enum {
    START = 0x1000,
    END = 0x1200,
    HDR = 0x3000,
    FRAMES = 0x4000,
    STACK = 0x70000,
    RBX = 3,
    R12 = 12
};
#define WORD(i) (UINT64_C(0xa000) + (i))

static struct bytes {
    uint8_t data[512];
    size_t n;
} hdr, frames;
static size_t budget;
static int failures;

static void put(struct bytes *b, uint64_t value, size_t n)
{
    memcpy(b->data + b->n, &value, n);
    b->n += n;
}

static void set_u32(struct bytes *b, size_t at, size_t value)
{
    uint32_t v = (uint32_t)value;
    memcpy(b->data + at, &v, sizeof v);
}

/* A pointer to TO in an encoding of pointers. */
static void put_encoded(uint8_t encoding, uint64_t to)
{
    static const uint8_t sizes[16] = {8, 0, 2, 4, 8, 0, 0, 0, 0, 0, 2, 4, 8};
    if ((encoding & 0xf0) == 0x10)
        to -= FRAMES + frames.n;
    else if ((encoding & 0xf0) == 0x30)
        to -= FRAMES;
    put(&frames, to, sizes[encoding & 0x0f]);
}

struct cie {
    uint8_t version, encoding, return_column;
    const char *augmentation;
    const char *initial; /* its program: the CFA is rsp + 8 by default */
    size_t initial_len;
};

static const struct cie usual = {1, 0x1b, 16, "zR", "\x0c\x07\x08\x90\x01", 5};

/* One CIE and one FDE with this program, and their index. */
static void build(const struct cie *cie, const void *program, size_t len)
{
    hdr.n = frames.n = 0;
    put(&frames, 0, 4);
    put(&frames, 0, 4);
    put(&frames, cie->version, 1);
    memcpy(frames.data + frames.n, cie->augmentation,
           strlen(cie->augmentation) + 1);
    frames.n += strlen(cie->augmentation) + 1;
    put(&frames, 1, 1);    /* code alignment */
    put(&frames, 0x78, 1); /* data alignment: -8 */
    put(&frames, cie->return_column, 1);
    if (cie->augmentation[0] == 'z') {
        size_t at = frames.n++;
        for (const char *a = cie->augmentation + 1; *a; a++) {
            if (*a == 'R' || *a == 'L')
                put(&frames, cie->encoding, 1);
            if (*a == 'P')
                put(&frames, 0x03, 1), put(&frames, 0x1234, 4);
        }
        frames.data[at] = (uint8_t)(frames.n - at - 1);
    }
    memcpy(frames.data + frames.n, cie->initial, cie->initial_len);
    frames.n += cie->initial_len;
    set_u32(&frames, 0, frames.n - 4);

    size_t fde = frames.n;
    put(&frames, 0, 4);
    put(&frames, fde + 4, 4);
    put_encoded(cie->encoding, START);
    put_encoded(cie->encoding & 0x0f, END - START);
    if (cie->augmentation[0] == 'z')
        put(&frames, 0, 1);
    memcpy(frames.data + frames.n, program, len);
    frames.n += len;
    set_u32(&frames, fde, frames.n - fde - 4);

    put(&hdr, 0x3b031b01, 4);
    put(&hdr, 0, 4);
    put(&hdr, 1, 4);
    put(&hdr, (uint64_t)START - HDR, 4);
    put(&hdr, FRAMES + fde - HDR, 4);
}

static enum cfi_result step(uint64_t pc, uint64_t regs[CFI_REGS], bool *signal)
{
    static uint64_t words[64];
    for (size_t i = 0; i < 64; i++)
        words[i] = WORD(i);
    for (size_t i = 0; i < CFI_REGS; i++)
        regs[i] = 0x100 * i;
    regs[CFI_RSP] = STACK;
    regs[CFI_RBP] = STACK + 64;
    const struct cfi cfi = {{hdr.data, hdr.n, HDR},
                            {frames.data, frames.n, FRAMES}};
    const struct stack_copy stack = {(const uint8_t *)words, sizeof words,
                                     STACK};
    budget = 1000;
    return cfi_step(&cfi, pc, regs, &stack, signal, &budget);
}

static void expect(const char *what, uint64_t pc, enum cfi_result result,
                   size_t reg, uint64_t value)
{
    uint64_t regs[CFI_REGS];
    bool signal = false;
    enum cfi_result came = step(pc, regs, &signal);
    if (came != result || (result == CFI_STEPPED && regs[reg] != value)) {
        printf("%s: result %d, not %d; register %zu is %#llx, not %#llx\n",
               what, came, result, reg, (unsigned long long)regs[reg],
               (unsigned long long)value);
        failures++;
    }
}

struct row {
    const char *what;
    enum cfi_result result;
    size_t reg;
    uint64_t value;
    const char *program;
    size_t len;
};

#define P(text) text, sizeof(text) - 1
/* The CFA is STACK + 24, and RBX is what the expression comes to. */
#define EXPR(what, value, len, text)                                           \
    {                                                                          \
        what, CFI_STEPPED, RBX, value, P("\x0e\x18\x16\x03" len text)          \
    }

static const struct row rows[] = {
    {"nothing", CFI_STEPPED, CFI_RIP, WORD(0), P("")},
    {"nothing", CFI_STEPPED, CFI_RSP, STACK + 8, P("")},
    {"nothing", CFI_STEPPED, RBX, 0x300, P("")},
    {"nop", CFI_STEPPED, CFI_RSP, STACK + 8, P("\0\0")},
    {"def_cfa", CFI_STEPPED, CFI_RIP, WORD(9), P("\x0c\x06\x10")},
    {"def_cfa_sf", CFI_STEPPED, CFI_RIP, WORD(9), P("\x12\x06\x7e")},
    {"def_cfa_register", CFI_STEPPED, CFI_RIP, WORD(8), P("\x0d\x06")},
    {"def_cfa_offset", CFI_STEPPED, CFI_RIP, WORD(3), P("\x0e\x20")},
    {"def_cfa_offset", CFI_STEPPED, CFI_RSP, STACK + 32, P("\x0e\x20")},
    {"def_cfa_offset_sf", CFI_STEPPED, CFI_RIP, WORD(3), P("\x13\x7c")},
    {"offset", CFI_STEPPED, RBX, WORD(1), P("\x0e\x18\x83\x02")},
    {"offset_extended", CFI_STEPPED, RBX, WORD(1), P("\x0e\x18\x05\x03\x02")},
    {"... of two bytes", CFI_STEPPED, RBX, WORD(1),
     P("\x0e\x18\x05\x83\x00\x02")},
    {"offset_extended_sf", CFI_STEPPED, RBX, WORD(5),
     P("\x0e\x18\x11\x03\x7e")},
    {"val_offset", CFI_STEPPED, RBX, STACK + 8, P("\x0e\x18\x14\x03\x02")},
    {"val_offset_sf", CFI_STEPPED, RBX, STACK + 40, P("\x0e\x18\x15\x03\x7e")},
    {"register", CFI_STEPPED, RBX, 0xc00, P("\x09\x03\x0c")},
    {"same_value", CFI_STEPPED, RBX, 0x300, P("\x0e\x18\x83\x02\x08\x03")},
    {"undefined", CFI_STEPPED, RBX, 0x300, P("\x0e\x18\x83\x02\x07\x03")},
    {"no return address", CFI_OUTERMOST, 0, 0, P("\x07\x10")},
    {"restore", CFI_STEPPED, RBX, 0x300, P("\x0e\x18\x83\x02\xc3")},
    {"restore_extended", CFI_STEPPED, RBX, 0x300,
     P("\x0e\x18\x83\x02\x06\x03")},
    {"the return address restored", CFI_STEPPED, CFI_RIP, WORD(0),
     P("\x09\x10\x0c\x06\x10")},
    {"... in one byte", CFI_STEPPED, CFI_RIP, WORD(0), P("\x09\x10\x0c\xd0")},
    {"the stack pointer", CFI_STEPPED, CFI_RSP, STACK + 48,
     P("\x0e\x18\x15\x07\x7d")},
    {"remembered", CFI_STEPPED, CFI_RSP, STACK + 8, P("\x0a\x0e\x20\x0b")},
    {"remembered twice", CFI_STEPPED, CFI_RSP, STACK + 32,
     P("\x0a\x0e\x20\x0a\x0e\x40\x0b")},
    {"nothing remembered", CFI_NONE, 0, 0, P("\x0b")},
    {"eight remembered", CFI_STEPPED, CFI_RSP, STACK + 8,
     P("\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a")},
    {"too many remembered", CFI_NONE, 0, 0,
     P("\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a\x0a")},
    {"args_size", CFI_STEPPED, CFI_RSP, STACK + 8, P("\x2e\x10")},
    {"a register that is not kept", CFI_STEPPED, CFI_RSP, STACK + 8,
     P("\x95\x02\x05\x40\x02\x06\x40\xd5\x10\x40\x01\x30")},
    {"the CFA by an expression", CFI_STEPPED, CFI_RIP, WORD(1),
     P("\x0f\x02\x77\x10")},
    {"saved where an expression says", CFI_STEPPED, RBX, WORD(2),
     P("\x10\x03\x02\x23\x08")},
    EXPR("the CFA", STACK + 24, "\x02", "\x23\x00"),
    EXPR("plus_uconst", STACK + 0x98, "\x03", "\x23\x80\x01"),
    EXPR("lit", 5, "\x01", "\x35"),
    EXPR("const1u", 0xff, "\x02", "\x08\xff"),
    EXPR("const1s", UINT64_MAX, "\x02", "\x09\xff"),
    EXPR("const2u", 0x1234, "\x03", "\x0a\x34\x12"),
    EXPR("breg", 0xbff, "\x02", "\x7c\x7f"),
    EXPR("deref", WORD(1), "\x03", "\x77\x08\x06"),
    EXPR("and", 0x0f, "\x05", "\x08\xff\x08\x0f\x1a"),
    EXPR("minus", 5, "\x03", "\x38\x33\x1c"),
    EXPR("plus", 11, "\x03", "\x38\x33\x22"),
    EXPR("shl", 16, "\x03", "\x31\x34\x24"),
    EXPR("shl of all bits", 0, "\x04", "\x31\x08\x40\x24"),
    EXPR("ge", 1, "\x03", "\x33\x33\x2a"),
    EXPR("ge of less", 0, "\x04", "\x09\xff\x33\x2a"),

    {"beyond the stack", CFI_BEYOND, 0, 0, P("\x83\x02")},
    {"beyond the other end", CFI_BEYOND, 0, 0, P("\x0e\x88\x04")},
    {"an expression beyond it", CFI_BEYOND, 0, 0, P("\x0f\x02\x31\x06")},
    {"saved beyond it", CFI_BEYOND, 0, 0, P("\x10\x03\x01\x31")},
    {"set_loc", CFI_NONE, 0, 0, P("\x01")},
    {"no such instruction", CFI_NONE, 0, 0, P("\x3f")},
    {"no such operation", CFI_NONE, 0, 0, P("\x0f\x03\x77\x10\xe0")},
    {"an operation of two on one", CFI_NONE, 0, 0, P("\x0f\x02\x31\x22")},
    {"deref of nothing", CFI_NONE, 0, 0, P("\x0f\x01\x06")},
    {"plus_uconst of nothing", CFI_NONE, 0, 0, P("\x0f\x02\x23\x08")},
    {"an expression of nothing", CFI_NONE, 0, 0, P("\x0f\x00")},
    {"no such operation on two", CFI_NONE, 0, 0, P("\x0f\x03\x31\x31\x25")},
    {"an expression's stack is full", CFI_NONE, 0, 0,
     P("\x0f\x10\x31\x31\x31\x31\x31\x31\x31\x31\x31\x31\x31\x31\x31\x31\x31"
       "\x31")},
    {"breg of no register", CFI_NONE, 0, 0, P("\x0f\x02\x81\x10")},
    {"a rule of no sense", CFI_NONE, 0, 0, P("\x16\x03\x01\xff")},
    {"the CFA of no register", CFI_NONE, 0, 0, P("\x0c\x14\x08")},
    {"in no register", CFI_NONE, 0, 0, P("\x09\x03\x14")},
    {"the stack does not shrink", CFI_NONE, 0, 0, P("\x0e\x00\x14\x10\x00")},
    {"cut off", CFI_NONE, 0, 0, P("\x0c\x07")},
    {"a number that is cut off", CFI_NONE, 0, 0, P("\x0e\x80")},
    {"a number without end", CFI_NONE, 0, 0,
     P("\x0e\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80"
       "\x80\x80\x80\x80\x00")},
    {"a padded number", CFI_STEPPED, CFI_RSP, STACK + 8,
     P("\x0e\x88\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00")},
};

/* What holds at an instruction is what was said before it. */
static void check_places(void)
{
    static const struct {
        const char *program;
        size_t len;
        uint64_t from;
    } moves[] = {{P("\x41\x0e\x20"), 1},
                 {P("\x02\x80\x0e\x20"), 0x80},
                 {P("\x03\x00\x01\x0e\x20"), 0x100},
                 {P("\x04\x00\x01\x00\x00\x0e\x20"), 0x100},
                 {P("\x7f\x7f\x41\x0e\x20"), 0x7f}};
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        build(&usual, moves[i].program, moves[i].len);
        expect("before it", START + moves[i].from - 1, CFI_STEPPED, CFI_RSP,
               STACK + 8);
        expect("from there on", START + moves[i].from, CFI_STEPPED, CFI_RSP,
               STACK + 32);
        expect("at the end", END - 1, CFI_STEPPED, CFI_RSP, STACK + 32);
    }
    expect("before the function", START - 1, CFI_NONE, 0, 0);
    expect("after the function", END, CFI_NONE, 0, 0);
}

static void check_cie(const char *what, struct cie cie, enum cfi_result result)
{
    build(&cie, "", 0);
    expect(what, START, result, CFI_RIP, WORD(0));
}

static void check_cies(void)
{
    static const uint8_t encodings[] = {0x00, 0x02, 0x03, 0x04, 0x0a, 0x0b,
                                        0x0c, 0x1b, 0x1c, 0x3b, 0x3a};
    struct cie cie = usual;
    for (size_t i = 0; i < sizeof encodings; i++) {
        cie.encoding = encodings[i];
        check_cie("an encoding", cie, CFI_STEPPED);
    }
    cie.encoding = 0x2b;
    check_cie("relative to nothing that is known", cie, CFI_NONE);
    cie.encoding = 0x01;
    check_cie("a pointer of no size", cie, CFI_NONE);

    cie = usual;
    cie.version = 3;
    check_cie("version 3", cie, CFI_STEPPED);
    cie.version = 4;
    check_cie("version 4", cie, CFI_NONE);
    cie = usual;
    cie.return_column = 15;
    check_cie("another return address", cie, CFI_NONE);
    cie = usual;
    cie.augmentation = "zPLR";
    check_cie("a personality", cie, CFI_STEPPED);
    cie.augmentation = "zX";
    check_cie("an unknown augmentation", cie, CFI_NONE);
    cie.augmentation = "eh";
    check_cie("an old augmentation", cie, CFI_NONE);
    cie.augmentation = "zSSSSSSSSSSSSSSR";
    check_cie("a long augmentation", cie, CFI_NONE);
    cie.augmentation = "";
    cie.encoding = 0;
    check_cie("no augmentation", cie, CFI_STEPPED);
    cie = usual;
    cie.initial_len = 0;
    check_cie("no CFA", cie, CFI_NONE);
    cie.initial = "\x0c\x07\x08\x90";
    cie.initial_len = 4;
    check_cie("an initial program that is cut off", cie, CFI_NONE);

    /* Of a signal's trampoline the caller may be anywhere, and has not called.
     */
    cie = usual;
    cie.augmentation = "zRS";
    build(&cie, P("\x16\x07\x01\x31"));
    expect("another stack", START, CFI_STEPPED, CFI_RSP, 1);
    uint64_t regs[CFI_REGS];
    bool signal = false;
    (void)step(START, regs, &signal);
    failures += !signal;
    build(&usual, "", 0);
    (void)step(START, regs, &signal);
    failures += signal;
}

/* Any byte of the head of the index, and lengths that are too long. */
static void check_damage(void)
{
    static const struct {
        struct bytes *where;
        size_t at;
        uint8_t value;
    } changes[] = {{&hdr, 0, 2},      {&hdr, 3, 0x1b},   {&hdr, 8, 2},
                   {&hdr, 2, 0x01},   {&hdr, 1, 0x21},   {&hdr, 19, 0x10},
                   {&frames, 0, 200}, {&frames, 4, 1},   {&frames, 1, 0xff},
                   {&frames, 17, 99}, {&frames, 28, 99}, {&frames, 26, 0}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        build(&usual, "", 0);
        expect("undamaged", START, CFI_STEPPED, CFI_RIP, WORD(0));
        changes[i].where->data[changes[i].at] = changes[i].value;
        char what[64];
        snprintf(what, sizeof what, "damage %zu", i);
        expect(what, START, CFI_NONE, 0, 0);
    }
    build(&usual, "", 0);
    set_u32(&frames, 0, 0xffffffff);
    expect("64-bit DWARF", START, CFI_NONE, 0, 0);
    for (size_t n = hdr.n; n-- > 0;) {
        build(&usual, "", 0);
        hdr.n = n;
        expect("an index that is cut off", START, CFI_NONE, 0, 0);
    }
    build(&usual, "", 0);
    for (size_t n = frames.n; n-- > 0;) {
        frames.n = n;
        expect("frames that are cut off", START, CFI_NONE, 0, 0);
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        build(&usual, rows[i].program, rows[i].len);
        expect(rows[i].what, START, rows[i].result, rows[i].reg, rows[i].value);
    }
    check_places();
    check_cies();
    check_damage();
    return failures != 0;
}
