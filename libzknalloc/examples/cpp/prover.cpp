/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * prover.cpp - containers and buffers from the cache, an arena for a phase, a
 * secret for the blinding, round after round.
 */
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory_resource>
#include <numeric>
#include <vector>
#include <zknalloc.hpp>

namespace
{

constexpr std::size_t rows = std::size_t{1} << 20;
constexpr int rounds = 5;

/* Elements that are computed anyway need not be cleared first. */
using Column =
    std::vector<std::uint64_t, zkn::uninitialized_allocator<std::uint64_t>>;

/* What a round takes from the arena ends with the scope. */
std::uint64_t prove(zkn::arena &scratch, zkn::secret &blinding)
{
    zkn::arena::scope round(scratch);
    Column column(rows);
    std::iota(column.begin(), column.end(), std::uint64_t{1});

    auto *powers = scratch.alloc<std::uint64_t>(rows / 2);
    blinding.protect(zkn::access::read_only);
    powers[0] = std::to_integer<std::uint64_t>(blinding.data()[0]);
    blinding.protect(zkn::access::none);
    for (std::size_t i = 1; i < rows / 2; i++)
        powers[i] = powers[i - 1] * 3;
    for (std::size_t i = 0; i < rows / 2; i++)
        column[i] += powers[i];

    /* Grows by moving page tables; nothing is copied. */
    zkn::unique_buffer<std::uint64_t> extended(rows);
    for (std::size_t i = 0; i < rows; i++)
        extended[i] = column[i] * column[i];
    extended.resize(2 * rows);
    for (std::size_t i = 0; i < rows; i++)
        extended[rows + i] = 3 * extended[i] + 1;

    /* Code that is written against std::pmr needs no change. */
    std::pmr::vector<std::uint64_t> layer(extended.begin(), extended.end(),
                                          zkn::resource());
    while (layer.size() > 1) {
        std::size_t half = layer.size() / 2;
        for (std::size_t i = 0; i < half; i++)
            layer[i] += layer[half + i];
        layer.resize(half);
    }
    return layer[0];
}

} // namespace

int main()
try {
    zkn::arena scratch(rows * sizeof(std::uint64_t));
    zkn::secret blinding(32); /* from a random source, in earnest */
    blinding.data()[0] = std::byte{42};
    std::uint64_t first = prove(scratch, blinding);
    zkn_stats_t warm = ZKN_STATS_INIT;
    zkn_stats_t now = ZKN_STATS_INIT;
    (void)zkn_stats_get(&warm);
    for (int round = 1; round < rounds; round++) {
        if (prove(scratch, blinding) != first) {
            std::fprintf(stderr, "round %d differs\n", round);
            return 1;
        }
    }
    (void)zkn_stats_get(&now);
    if (scratch.used() != 0) {
        std::fprintf(stderr, "a round left memory in the arena\n");
        return 1;
    }
    if (now.misses != warm.misses || now.hits == warm.hits) {
        std::fprintf(stderr, "warm rounds missed the cache\n");
        return 1;
    }
    std::printf("%d rounds on zknalloc %s\n", rounds, zkn_version());
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "prover: %s\n", error.what());
    return 1;
}
