/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * prover.cpp - containers and buffers from the cache, round after round.
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

std::uint64_t prove()
{
    Column column(rows);
    std::iota(column.begin(), column.end(), std::uint64_t{1});

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
    std::uint64_t first = prove();
    zkn_stats_t warm = ZKN_STATS_INIT;
    zkn_stats_t now = ZKN_STATS_INIT;
    (void)zkn_stats_get(&warm);
    for (int round = 1; round < rounds; round++) {
        if (prove() != first) {
            std::fprintf(stderr, "round %d differs\n", round);
            return 1;
        }
    }
    (void)zkn_stats_get(&now);
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
