/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The API under libFuzzer: the input's bytes are an actor's choices (model.h).
 *
 *   CC=clang-14 cmake -S libzknalloc -B build/fuzz -DZKN_FUZZ=ON
 *   cmake --build build/fuzz --target fuzz_api
 *   build/fuzz/tests/fuzz_api -max_total_time=600 -max_len=4096
 */
#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two bytes for a choice; the end of the input chooses 0. */
static size_t pick_byte(struct actor *actor, size_t n)
{
    size_t value = 0;
    for (int i = 0; i < (n > 256 ? 3 : 1) && actor->at < actor->end; i++)
        value = value << 8 | *actor->at++;
    return value % n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct actor actor;
    static bool open;
    struct actor *const actors[] = {&actor};
    if (!open)
        model_open();
    open = true;
    actor = (struct actor){.pick = pick_byte,
                           .at = data,
                           .end = data + size,
                           .name = 1,
                           .most = (size_t)64 << 20};
    while (actor.at < actor.end)
        actor_act(&actor);
    model_check(actors, 1);
    actor_leave(&actor);
    model_clear_shelf();
    model_check_empty();
    return 0;
}
