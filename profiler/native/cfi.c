/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * cfi.c - DWARF call frame information, as .eh_frame holds it.
 *
 * For each range of instructions a little program says how to find the
 * canonical frame address (CFA: the stack pointer before the call) and where
 * the caller's registers were saved, relative to it.  Every x86-64 program has
 * these, with or without frame pointers, because C++ and Rust unwind by them.
 *
 * The file belongs to the target, which may be hostile: each read is bounded
 * by its section, every loop by the bytes left and by what a walk may cost, and
 * whatever makes no sense ends the walk (CFI_NONE).  Nothing is ever written to
 * but the caller's registers.  Sums and products wrap around.
 */
#include "cfi.h"

#include <string.h>

/* ---------------------------------------------------------------- reading */

/* Bytes still to be read; BAD once one was missing. */
struct cursor {
    const uint8_t *p, *end;
    bool bad;
};

static uint64_t read_bytes(struct cursor *c, size_t n)
{
    uint64_t value = 0;
    if ((size_t)(c->end - c->p) < n) {
        c->bad = true;
        c->p = c->end;
        return 0;
    }
    memcpy(&value, c->p, n); /* little-endian, as x86-64 is */
    c->p += n;
    return value;
}

/* Seven bits a byte.  Linkers may pad a number, but not without end. */
#define MAX_LEB 16

static bool too_long(struct cursor *c, unsigned shift)
{
    c->bad |= shift >= 7 * MAX_LEB;
    return c->bad;
}

static uint64_t read_uleb(struct cursor *c)
{
    uint64_t value = 0, byte;
    unsigned shift = 0;
    do {
        byte = read_bytes(c, 1);
        if (shift < 64)
            value |= (byte & 0x7f) << shift;
        shift += 7;
    } while ((byte & 0x80) && !too_long(c, shift));
    return value;
}

static int64_t read_sleb(struct cursor *c)
{
    uint64_t value = 0, byte;
    unsigned shift = 0;
    do {
        byte = read_bytes(c, 1);
        if (shift < 64)
            value |= (byte & 0x7f) << shift;
        shift += 7;
    } while ((byte & 0x80) && !too_long(c, shift));
    if ((byte & 0x40) && shift < 64)
        value |= ~UINT64_C(0) << shift;
    return (int64_t)value;
}

static struct cursor skip(struct cursor *c, uint64_t n)
{
    struct cursor part = {c->p, c->p, false};
    if ((uint64_t)(c->end - c->p) < n) {
        c->bad = part.bad = true;
        c->p = c->end;
    } else {
        c->p += n;
        part.end = c->p;
    }
    return part;
}

/* A pointer in one of the DW_EH_PE_ encodings; SECTION is where C reads. */
static uint64_t read_encoded(struct cursor *c, uint8_t encoding,
                             const struct cfi_section *section)
{
    uint64_t here = section->vaddr + (uint64_t)(c->p - section->data), value;
    switch (encoding & 0x0f) {
    case 0x00:
    case 0x04:
    case 0x0c:
        value = read_bytes(c, 8);
        break;
    case 0x02:
        value = read_bytes(c, 2);
        break;
    case 0x0a:
        value = (uint64_t)(int64_t)(int16_t)read_bytes(c, 2);
        break;
    case 0x03:
        value = read_bytes(c, 4);
        break;
    case 0x0b:
        value = (uint64_t)(int64_t)(int32_t)read_bytes(c, 4);
        break;
    default:
        c->bad = true;
        return 0;
    }
    switch (encoding & 0xf0) {
    case 0x00:
        return value;
    case 0x10: /* relative to itself */
        return here + value;
    case 0x30: /* relative to its section */
        return section->vaddr + value;
    default:
        c->bad = true;
        return 0;
    }
}

/* ---------------------------------------------------------------- finding */

/* A function's entry (FDE) with what it shares with others (its CIE). */
struct entry {
    uint64_t start, end; /* addresses it speaks of */
    uint64_t code_align;
    int64_t data_align;
    bool is_signal;
    struct cursor initial, program;
};

/* The parts of a CIE; the augmentation string says which it has: "zPLR" and
 * the like. */
#define MAX_AUGMENTATION 16

static bool read_cie(const struct cfi_section *frames, struct cursor c,
                     struct entry *e, uint8_t *encoding)
{
    uint64_t version = read_bytes(&c, 1);
    if (version != 1 && version != 3)
        return false;
    const char *augmentation = (const char *)c.p;
    size_t room = (size_t)(c.end - c.p);
    if (c.bad ||
        !memchr(c.p, 0, room < MAX_AUGMENTATION ? room : MAX_AUGMENTATION))
        return false;
    c.p += strlen(augmentation) + 1;
    e->code_align = read_uleb(&c);
    e->data_align = read_sleb(&c);
    uint64_t return_column = version == 1 ? read_bytes(&c, 1) : read_uleb(&c);
    if (return_column != CFI_RIP)
        return false;
    *encoding = 0;
    if (augmentation[0] == 'z') {
        struct cursor data = skip(&c, read_uleb(&c));
        for (const char *a = augmentation + 1; *a && !data.bad; a++) {
            if (*a == 'R')
                *encoding = (uint8_t)read_bytes(&data, 1);
            else if (*a == 'L')
                (void)read_bytes(&data, 1);
            else if (*a == 'P')
                (void)read_encoded(&data, (uint8_t)read_bytes(&data, 1) & 0x7f,
                                   frames);
            else if (*a == 'S')
                e->is_signal = true;
            else
                return false;
        }
        c.bad |= data.bad;
    } else if (augmentation[0]) {
        return false;
    }
    e->initial = c;
    return !c.bad;
}

/* The record at offset AT of .eh_frame, without its length; empty if bad. */
static struct cursor record_at(const struct cfi_section *frames, uint64_t at)
{
    struct cursor c = {frames->data, frames->data + frames->len, false};
    (void)skip(&c, at);
    uint64_t len = read_bytes(&c, 4);
    if (len == 0xffffffff || len == 0)
        c.bad = true; /* 64-bit DWARF: no linker writes it */
    return c.bad ? (struct cursor){c.end, c.end, true} : skip(&c, len);
}

static bool read_fde(const struct cfi_section *frames, uint64_t at,
                     struct entry *e)
{
    struct cursor c = record_at(frames, at);
    uint64_t id_at = (uint64_t)(c.p - frames->data);
    uint64_t back = read_bytes(&c, 4);
    if (c.bad || back == 0 || back > id_at)
        return false;
    struct cursor cie = record_at(frames, id_at - back);
    uint8_t encoding;
    if (read_bytes(&cie, 4) != 0 || cie.bad ||
        !read_cie(frames, cie, e, &encoding))
        return false;
    e->start = read_encoded(&c, encoding & 0x7f, frames);
    e->end = e->start + read_encoded(&c, encoding & 0x0f, frames);
    if (encoding && !c.bad) /* its augmentation data: a pointer for 'L' */
        (void)skip(&c, read_uleb(&c));
    e->program = c;
    return !c.bad;
}

/* The entry of the function that PC is in, through the sorted index. */
static bool find(const struct cfi *cfi, uint64_t pc, struct entry *e)
{
    const struct cfi_section *hdr = &cfi->hdr;
    if (!hdr->len || !cfi->frames.len)
        return false; /* the file has none */
    struct cursor c = {hdr->data, hdr->data + hdr->len, false};
    uint64_t head = read_bytes(&c, 4);
    uint8_t pointer = (uint8_t)(head >> 8), count = (uint8_t)(head >> 16);
    if (c.bad || (head & 0xff) != 1 || head >> 24 != 0x3b)
        return false; /* pairs of 4 bytes, relative to the section */
    (void)read_encoded(&c, pointer, hdr);
    uint64_t n = read_encoded(&c, count, hdr);
    if (c.bad || n > (uint64_t)(c.end - c.p) / 8)
        return false;
    uint64_t low = 0, high = n;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        int32_t start;
        memcpy(&start, c.p + 8 * mid, 4);
        if (hdr->vaddr + (uint64_t)(int64_t)start <= pc)
            low = mid + 1;
        else
            high = mid;
    }
    if (!low)
        return false;
    int32_t fde;
    memcpy(&fde, c.p + 8 * (low - 1) + 4, 4);
    uint64_t at = hdr->vaddr + (uint64_t)(int64_t)fde - cfi->frames.vaddr;
    return read_fde(&cfi->frames, at, e) && pc >= e->start && pc < e->end;
}

/* ------------------------------------------------------------------ rules */

enum how { SAME, UNDEFINED, AT_CFA, CFA_PLUS, IN_REG, AT_EXPR, IS_EXPR };

struct rule {
    enum how how;
    int64_t value;      /* offset from the CFA, or a register */
    struct cursor expr; /* a DWARF expression */
};

struct rules {
    struct rule cfa; /* IN_REG + offset, or IS_EXPR */
    int64_t cfa_offset;
    struct rule reg[CFI_REGS];
};

#define MAX_REMEMBERED 8

static void set(struct rules *r, uint64_t reg, enum how how, int64_t value)
{
    if (reg < CFI_REGS)
        r->reg[reg] = (struct rule){how, value, {0}};
}

static void set_expr(struct rules *r, uint64_t reg, enum how how,
                     struct cursor *c)
{
    struct cursor expr = skip(c, read_uleb(c));
    if (reg < CFI_REGS)
        r->reg[reg] = (struct rule){how, 0, expr};
}

static int64_t times(uint64_t factor, int64_t align)
{
    return (int64_t)(factor * (uint64_t)align);
}

/* Run the program C up to the instruction at PC, or fail where that takes more
 * than *BUDGET bytes of it.  INITIAL are the rules that "restore" goes back to.
 */
static bool run(struct cursor c, const struct entry *e, uint64_t pc,
                struct rules *r, const struct rules *initial, size_t *budget)
{
    const uint8_t *start = c.p;
    if ((size_t)(c.end - c.p) > *budget) {
        /* One byte more than may be read: whoever reads it has failed. */
        c.end = c.p + *budget + 1;
    }
    struct rules remembered[MAX_REMEMBERED];
    size_t n_remembered = 0;
    uint64_t at = e->start, reg;
    while (c.p < c.end && !c.bad && at <= pc) {
        uint8_t op = (uint8_t)read_bytes(&c, 1), low = op & 0x3f;
        switch (op >> 6) {
        case 1: /* advance_loc */
            at += low * e->code_align;
            continue;
        case 2: /* offset */
            set(r, low, AT_CFA, times(read_uleb(&c), e->data_align));
            continue;
        case 3: /* restore */
            if (low < CFI_REGS)
                r->reg[low] = initial->reg[low];
            continue;
        default:
            break;
        }
        switch (op) {
        case 0x00: /* nop */
            break;
        case 0x01: /* set_loc: not in .eh_frame of any compiler */
            return false;
        case 0x02: /* advance_loc1 */
            at += read_bytes(&c, 1) * e->code_align;
            break;
        case 0x03: /* advance_loc2 */
            at += read_bytes(&c, 2) * e->code_align;
            break;
        case 0x04: /* advance_loc4 */
            at += read_bytes(&c, 4) * e->code_align;
            break;
        case 0x05: /* offset_extended */
            reg = read_uleb(&c);
            set(r, reg, AT_CFA, times(read_uleb(&c), e->data_align));
            break;
        case 0x06: /* restore_extended */
            reg = read_uleb(&c);
            if (reg < CFI_REGS)
                r->reg[reg] = initial->reg[reg];
            break;
        case 0x07: /* undefined */
            set(r, read_uleb(&c), UNDEFINED, 0);
            break;
        case 0x08: /* same_value */
            set(r, read_uleb(&c), SAME, 0);
            break;
        case 0x09: /* register */
            reg = read_uleb(&c);
            set(r, reg, IN_REG, (int64_t)read_uleb(&c));
            break;
        case 0x0a: /* remember_state */
            if (n_remembered == MAX_REMEMBERED)
                return false;
            remembered[n_remembered++] = *r;
            break;
        case 0x0b: /* restore_state */
            if (!n_remembered)
                return false;
            *r = remembered[--n_remembered];
            break;
        case 0x0c: /* def_cfa */
            r->cfa = (struct rule){IN_REG, (int64_t)read_uleb(&c), {0}};
            r->cfa_offset = (int64_t)read_uleb(&c);
            break;
        case 0x0d: /* def_cfa_register */
            r->cfa = (struct rule){IN_REG, (int64_t)read_uleb(&c), {0}};
            break;
        case 0x0e: /* def_cfa_offset */
            r->cfa_offset = (int64_t)read_uleb(&c);
            break;
        case 0x0f: /* def_cfa_expression */
            r->cfa = (struct rule){IS_EXPR, 0, skip(&c, read_uleb(&c))};
            break;
        case 0x10: /* expression */
            reg = read_uleb(&c);
            set_expr(r, reg, AT_EXPR, &c);
            break;
        case 0x11: /* offset_extended_sf */
            reg = read_uleb(&c);
            set(r, reg, AT_CFA, times((uint64_t)read_sleb(&c), e->data_align));
            break;
        case 0x12: /* def_cfa_sf */
            r->cfa = (struct rule){IN_REG, (int64_t)read_uleb(&c), {0}};
            r->cfa_offset = times((uint64_t)read_sleb(&c), e->data_align);
            break;
        case 0x13: /* def_cfa_offset_sf */
            r->cfa_offset = times((uint64_t)read_sleb(&c), e->data_align);
            break;
        case 0x14: /* val_offset */
            reg = read_uleb(&c);
            set(r, reg, CFA_PLUS, times(read_uleb(&c), e->data_align));
            break;
        case 0x15: /* val_offset_sf */
            reg = read_uleb(&c);
            set(r, reg, CFA_PLUS,
                times((uint64_t)read_sleb(&c), e->data_align));
            break;
        case 0x16: /* val_expression */
            reg = read_uleb(&c);
            set_expr(r, reg, IS_EXPR, &c);
            break;
        case 0x2e: /* GNU_args_size */
            (void)read_uleb(&c);
            break;
        default:
            return false;
        }
    }
    size_t taken = (size_t)(c.p - start);
    if (taken > *budget) {
        *budget = 0;
        return false;
    }
    *budget -= taken;
    return !c.bad;
}

/* --------------------------------------------------------------- stepping */

/* What a rule comes to; BEYOND where it asks for memory not copied. */
struct machine {
    const uint64_t *regs;
    const struct stack_copy *stack;
    size_t *budget;
    bool beyond;
};

static uint64_t load(struct machine *m, uint64_t addr)
{
    uint64_t value, offset = addr - m->stack->addr;
    if (m->stack->size < 8 || offset > m->stack->size - 8) {
        m->beyond = true;
        return 0;
    }
    memcpy(&value, m->stack->data + offset, 8);
    return value;
}

/* The few operations that compilers and linkers use here: those of PLTs
 * (a computed CFA), of realigned stacks and of signal trampolines. */
static bool evaluate(struct cursor c, struct machine *m, bool has_cfa,
                     uint64_t cfa, uint64_t *result)
{
    uint64_t stack[16] = {0};
    size_t n = 0, len = (size_t)(c.end - c.p);
    if (len > *m->budget)
        return false;
    *m->budget -= len;
    if (has_cfa)
        stack[n++] = cfa;
    while (c.p < c.end && !c.bad) {
        uint8_t op = (uint8_t)read_bytes(&c, 1);
        uint64_t value;
        if (n >= 15)
            return false;
        if (op >= 0x30 && op <= 0x4f) { /* lit0.. */
            stack[n++] = op - 0x30u;
            continue;
        }
        if (op >= 0x70 && op <= 0x8f) { /* breg0.. */
            if (op - 0x70 >= CFI_REGS)
                return false;
            value = m->regs[op - 0x70];
            stack[n++] = value + (uint64_t)read_sleb(&c);
            continue;
        }
        switch (op) {
        case 0x06: /* deref */
            if (n < 1)
                return false;
            stack[n - 1] = load(m, stack[n - 1]);
            continue;
        case 0x08: /* const1u */
            stack[n++] = read_bytes(&c, 1);
            continue;
        case 0x09: /* const1s */
            stack[n++] = (uint64_t)(int64_t)(int8_t)read_bytes(&c, 1);
            continue;
        case 0x0a: /* const2u */
            stack[n++] = read_bytes(&c, 2);
            continue;
        case 0x23: /* plus_uconst */
            if (n < 1)
                return false;
            stack[n - 1] += read_uleb(&c);
            continue;
        default:
            break;
        }
        if (n < 2)
            return false;
        uint64_t top = stack[--n];
        switch (op) {
        case 0x1a: /* and */
            stack[n - 1] &= top;
            break;
        case 0x1c: /* minus */
            stack[n - 1] -= top;
            break;
        case 0x22: /* plus */
            stack[n - 1] += top;
            break;
        case 0x24: /* shl */
            stack[n - 1] = top < 64 ? stack[n - 1] << top : 0;
            break;
        case 0x2a: /* ge */
            stack[n - 1] = (int64_t)stack[n - 1] >= (int64_t)top;
            break;
        default:
            return false;
        }
    }
    *result = n ? stack[n - 1] : 0;
    return n && !c.bad;
}

static bool apply(const struct rule *rule, size_t reg, uint64_t cfa,
                  struct machine *m, uint64_t *value)
{
    switch (rule->how) {
    case SAME:
    case UNDEFINED:
        *value = m->regs[reg];
        return true;
    case AT_CFA:
        *value = load(m, cfa + (uint64_t)rule->value);
        return true;
    case CFA_PLUS:
        *value = cfa + (uint64_t)rule->value;
        return true;
    case IN_REG:
        if ((uint64_t)rule->value >= CFI_REGS)
            return false;
        *value = m->regs[rule->value];
        return true;
    case AT_EXPR:
    case IS_EXPR:
        if (!evaluate(rule->expr, m, true, cfa, value))
            return false;
        if (rule->how == AT_EXPR)
            *value = load(m, *value);
        return true;
    default:
        return false;
    }
}

enum cfi_result cfi_step(const struct cfi *cfi, uint64_t pc,
                         uint64_t regs[CFI_REGS],
                         const struct stack_copy *stack, bool *signal,
                         size_t *budget)
{
    struct entry e = {0};
    struct rules initial = {0}, r;
    if (!find(cfi, pc, &e) ||
        !run(e.initial, &e, UINT64_MAX, &initial, &initial, budget))
        return CFI_NONE;
    r = initial;
    if (!run(e.program, &e, pc, &r, &initial, budget))
        return CFI_NONE;
    *signal = e.is_signal;
    if (r.reg[CFI_RIP].how == UNDEFINED)
        return CFI_OUTERMOST;

    struct machine m = {regs, stack, budget, false};
    uint64_t cfa, caller[CFI_REGS];
    if (r.cfa.how == IS_EXPR) {
        if (!evaluate(r.cfa.expr, &m, false, 0, &cfa))
            return m.beyond ? CFI_BEYOND : CFI_NONE;
    } else if (r.cfa.how == IN_REG && (uint64_t)r.cfa.value < CFI_REGS) {
        cfa = regs[r.cfa.value] + (uint64_t)r.cfa_offset;
    } else {
        return CFI_NONE;
    }
    if (m.beyond)
        return CFI_BEYOND;
    for (size_t i = 0; i < CFI_REGS; i++)
        if (!apply(&r.reg[i], i, cfa, &m, &caller[i]))
            return CFI_NONE;
    /* A register saved beyond the copy spoils the walk only where needed:
     * the return address and, nearly always, the frame pointer are. */
    if (m.beyond)
        return CFI_BEYOND;
    if (r.reg[CFI_RSP].how == SAME)
        caller[CFI_RSP] = cfa;
    /* Stacks grow downwards: a caller's is higher up, or this is nonsense. */
    if (caller[CFI_RSP] <= regs[CFI_RSP] && !e.is_signal)
        return CFI_NONE;
    memcpy(regs, caller, sizeof caller);
    return CFI_STEPPED;
}
