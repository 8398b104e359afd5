/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * main.c - the program for allocators that are preloaded.  The Rust programs
 * have a main of their own, since their allocator is built in.
 */
#include "harness.h"

int main(int argc, char **argv)
{
    return bench_main(argc, argv);
}
