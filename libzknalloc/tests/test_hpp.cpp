/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * test_hpp.cpp - zknalloc.hpp does what the containers and owners of C++
 * expect, and its memory is the cache's.
 */
#include "zknalloc.hpp"

#include <cstdint>
#include <cstring>
#include <list>
#include <map>
#include <memory_resource>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "testing.h"

namespace
{

constexpr std::size_t KIB = 1024, MIB = 1024 * KIB;

template <class T> using Vector = std::vector<T, zkn::allocator<T>>;

bool is_aligned(const void *p, std::size_t alignment)
{
    return reinterpret_cast<std::uintptr_t>(p) % alignment == 0;
}

/* Whether F throws an E. */
template <class E, class F> bool throws(F f)
{
    try {
        f();
    } catch (const E &) {
        return true;
    }
    return false;
}

void vectors_live_in_the_cache()
{
    Vector<std::uint64_t> column(1 * MIB, 7);
    CHECK_TRUE(zkn_owns(column.data()));
    column.resize(2 * MIB);
    CHECK(column[0], ==, 7);
    CHECK(column[2 * MIB - 1], ==, 0);
    Vector<std::uint64_t> taken = std::move(column);
    CHECK(taken.size(), ==, 2 * MIB);
    Vector<std::uint64_t> copy = taken;
    CHECK_TRUE(copy == taken);
    copy.swap(taken);

    struct alignas(4096) Page {
        char bytes[4096];
    };
    Vector<Page> pages(100);
    CHECK_TRUE(is_aligned(pages.data(), 4096));

    /* Containers of nodes rebind. */
    std::map<int, int, std::less<int>,
             zkn::allocator<std::pair<const int, int>>>
        map;
    std::list<int, zkn::allocator<int>> list;
    for (int i = 0; i < 1000; i++) {
        map[i] = i;
        list.push_back(i);
    }
    CHECK(map.size() + list.size(), ==, 2000);
    zkn::allocator<int> a;
    zkn::allocator<double> b(a);
    CHECK_TRUE(a == b && !(a != b));
}

void a_region_serves_again()
{
    {
        Vector<char> warm(5 * MIB);
    }
    zkn_stats_t before = stats_now();
    for (int i = 0; i < 10; i++)
        Vector<char> again(5 * MIB);
    CHECK(stats_now().hits - before.hits, ==, 10);
}

void nothing_is_cleared_without_need()
{
    using Plain =
        std::vector<std::uint64_t, zkn::uninitialized_allocator<std::uint64_t>>;
    const void *where;
    {
        Plain dirty(MIB);
        where = dirty.data();
        for (auto &x : dirty)
            x = 0xABABABABABABABAB;
    }
    Plain again(MIB);
    CHECK_TRUE(again.data() == where);
    CHECK_TRUE(again[12345] == 0xABABABABABABABAB);
    Plain given(MIB, 3);
    CHECK(given[MIB - 1], ==, 3);
    /* Types that need their constructor get it. */
    std::vector<std::string, zkn::uninitialized_allocator<std::string>> texts(
        100);
    CHECK_TRUE(texts[99].empty());
}

void too_much_is_an_exception()
{
    Vector<std::uint64_t> v;
    zkn::allocator<std::uint64_t> a;
    volatile std::size_t most = SIZE_MAX / 8; // compilers warn of such sizes
    CHECK_TRUE(throws<std::bad_alloc>([&] { (void)a.allocate(most); }));
    CHECK_TRUE(
        throws<std::bad_array_new_length>([&] { (void)a.allocate(most + 1); }));
    CHECK_TRUE(throws<std::length_error>([&] { v.resize(SIZE_MAX); }));
    using Buffer = zkn::unique_buffer<std::uint64_t>;
    CHECK_TRUE(throws<std::bad_alloc>([&] { Buffer buffer(most); }));
    CHECK_TRUE(throws<std::bad_alloc>([&] { Buffer buffer(most + 1); }));
    CHECK_TRUE(throws<std::bad_alloc>([&] { (void)Buffer::zeroed(most + 1); }));
    Buffer kept(10);
    kept[9] = 5;
    CHECK_TRUE(throws<std::bad_alloc>([&] { kept.resize(most); }));
    CHECK(kept.size(), ==, 10);
    CHECK(kept[9], ==, 5);
    CHECK_TRUE(
        throws<std::bad_alloc>([&] { (void)zkn::resource()->allocate(most); }));
}

void the_resource_serves_pmr()
{
    std::pmr::memory_resource *cache = zkn::resource();
    CHECK_TRUE(cache == zkn::resource());
    CHECK_TRUE(cache->is_equal(*zkn::resource()));
    CHECK_TRUE(!cache->is_equal(*std::pmr::new_delete_resource()));
    std::pmr::vector<std::uint32_t> v(MIB, 1, cache);
    CHECK_TRUE(zkn_owns(v.data()));
    std::pmr::unordered_map<int, std::pmr::string> table(cache);
    table[1] = "a text that is too long to lie within the object";
    void *p = cache->allocate(100 * KIB, 8192);
    CHECK_TRUE(is_aligned(p, 8192));
    cache->deallocate(p, 100 * KIB, 8192);
}

void buffers_have_one_owner()
{
    using Buffer = zkn::unique_buffer<std::uint32_t>;
    static_assert(!std::is_copy_constructible_v<Buffer>);
    static_assert(std::is_nothrow_move_constructible_v<Buffer>);
    std::uint64_t live = stats_now().live_now;
    {
        Buffer buffer(MIB);
        CHECK_TRUE(zkn_owns(buffer.data()) && is_aligned(buffer.data(), 64));
        for (std::size_t i = 0; i < buffer.size(); i++)
            buffer[i] = static_cast<std::uint32_t>(i);
        buffer.resize(4 * MIB);
        CHECK(buffer[MIB - 1], ==, MIB - 1);
        Buffer other = std::move(buffer);
        CHECK_TRUE(buffer.empty() && buffer.data() == nullptr); // NOLINT
        buffer = std::move(other);
        CHECK(buffer.end() - buffer.begin(), ==, 4 * MIB);
        buffer.resize(0);
        CHECK_TRUE(buffer.empty());

        Buffer zeroed = Buffer::zeroed(MIB);
        std::uint32_t sum = 0;
        for (std::uint32_t x : zeroed)
            sum |= x;
        CHECK(sum, ==, 0);
        std::uint32_t *raw = zeroed.release();
        CHECK_TRUE(raw != nullptr && zeroed.empty());
        zkn_free(raw);
    }
    CHECK(stats_now().live_now, ==, live);
}

void arenas_free_at_once()
{
    static_assert(!std::is_copy_constructible_v<zkn::arena>);
    zkn::arena arena(4 * MIB);
    CHECK(arena.capacity(), ==, 4 * MIB);
    double *first = arena.alloc<double>(1000);
    first[999] = 1.5;
    std::size_t used = arena.used();
    {
        zkn::arena::scope phase(arena);
        CHECK_TRUE(is_aligned(arena.allocate(100, 256), 256));
        CHECK(arena.used(), >, used);
    }
    CHECK(arena.used(), ==, used);
    CHECK(arena.peak(), >, used);
    CHECK_TRUE(
        throws<std::bad_alloc>([&] { (void)arena.alloc<char>(8 * MIB); }));
    CHECK_TRUE(throws<std::system_error>([&] { (void)arena.allocate(8, 3); }));
    {
        zkn::arena_resource resource(arena);
        std::pmr::vector<int> v(1000, 1, &resource);
        v.resize(100000);
        CHECK(arena.used(), >, 100000 * sizeof(int));
        CHECK_TRUE(resource.is_equal(resource));
        CHECK_TRUE(!resource.is_equal(*zkn::resource()));
    }
    {
        zkn::arena::scope phase(arena);
        arena.reset(); /* ends the scope's mark: nothing left to do */
    }
    CHECK(arena.used(), ==, 0);
    zkn::arena moved = std::move(arena);
    CHECK_TRUE(moved.alloc<char>(1) != nullptr);
    CHECK_TRUE(throws<std::system_error>([] { zkn::arena odd(1, ~0u); }));
}

void secrets_compare_and_vanish()
{
    static_assert(!std::is_copy_constructible_v<zkn::secret>);
    zkn::secret key(32), same(32), other(33);
    CHECK(key.size(), ==, 32);
    std::memset(key.data(), 0x5a, 32);
    std::memset(same.data(), 0x5a, 32);
    CHECK_TRUE(key == same && key != other);
    same.protect(zkn::access::read_only);
    CHECK_TRUE(key == same);
    key.wipe();
    CHECK_TRUE(key != same && key.data()[31] == std::byte{0});
    zkn::secret moved = std::move(same);
    CHECK(moved.size(), ==, 32);
    CHECK(moved.info() & ~15u, ==, 0);
    CHECK_TRUE(throws<std::system_error>([] { zkn::secret odd(1, ~0u); }));
}

} // namespace

int main()
{
    vectors_live_in_the_cache();
    a_region_serves_again();
    nothing_is_cleared_without_need();
    too_much_is_an_exception();
    the_resource_serves_pmr();
    buffers_have_one_owner();
    arenas_free_at_once();
    secrets_compare_and_vanish();
    return 0;
}
