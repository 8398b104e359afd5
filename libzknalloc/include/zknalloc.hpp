/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * zknalloc.hpp - zknalloc.h for C++17: header only, one name space, nothing
 * that the C functions do not do.
 *
 *   zkn::allocator<T>            for containers: std::vector<T,
 * zkn::allocator<T>> zkn::uninitialized_allocator the same; vector(n) leaves
 * its elements unset zkn::resource()              a std::pmr::memory_resource
 *   zkn::unique_buffer<T>        one buffer, owned; grows without copying
 *   zkn::arena                   a phase's memory, freed at once
 *   zkn::arena_resource          an arena for std::pmr containers
 *   zkn::secret                  memory for keys, wiped when it dies
 *
 * Failure is an exception: std::bad_alloc where memory is short,
 * std::system_error for everything else.  Owners can be moved, not copied; a
 * moved-from owner is empty and may only be assigned to or destroyed.
 */
#ifndef ZKNALLOC_HPP
#define ZKNALLOC_HPP

#include "zknalloc.h"

#if __cplusplus < 201703L
#error "zknalloc.hpp needs C++17"
#endif

#include <cerrno>
#include <cstddef>
#include <limits>
#include <memory>
#include <memory_resource>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

namespace zkn
{

namespace detail
{

/* zkn_alloc() aligns to this at least. */
inline constexpr std::size_t natural_alignment = 16;

[[noreturn]] inline void fail(int error, const char *what)
{
    if (error == ENOMEM)
        throw std::bad_alloc();
    throw std::system_error(error, std::generic_category(), what);
}

/* The size of COUNT elements of T. */
template <class T> std::size_t bytes_of(std::size_t count)
{
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T))
        throw std::bad_array_new_length();
    return count * sizeof(T);
}

inline void *allocate(std::size_t bytes, std::size_t alignment)
{
    void *p = alignment <= natural_alignment
                  ? zkn_alloc(bytes)
                  : zkn_aligned_alloc(alignment, bytes);
    if (p == nullptr)
        throw std::bad_alloc();
    return p;
}

} // namespace detail

/* -------------------------------------------------------------- containers */

/* Stateless: any allocator frees what any other has allocated. */
template <class T> class allocator
{
  public:
    using value_type = T;
    using is_always_equal = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;

    allocator() noexcept = default;
    template <class U> allocator(const allocator<U> &) noexcept
    {
    }

    [[nodiscard]] T *allocate(std::size_t count)
    {
        return static_cast<T *>(
            detail::allocate(detail::bytes_of<T>(count), alignof(T)));
    }

    void deallocate(T *p, std::size_t count) noexcept
    {
        zkn_free_sized(p, count * sizeof(T));
    }
};

template <class T, class U>
bool operator==(const allocator<T> &, const allocator<U> &) noexcept
{
    return true;
}

template <class T, class U>
bool operator!=(const allocator<T> &, const allocator<U> &) noexcept
{
    return false;
}

/* Elements that are given no value get none, where their type allows it: a
 * vector of a million field elements that are about to be computed need not be
 * cleared first. */
template <class T> class uninitialized_allocator : public allocator<T>
{
  public:
    uninitialized_allocator() noexcept = default;
    template <class U>
    uninitialized_allocator(const uninitialized_allocator<U> &) noexcept
    {
    }
    template <class U> struct rebind {
        using other = uninitialized_allocator<U>;
    };

    template <class U>
    void construct(U *p) noexcept(std::is_nothrow_default_constructible_v<U>)
    {
        ::new (static_cast<void *>(p)) U;
    }

    template <class U, class... Args> void construct(U *p, Args &&...args)
    {
        ::new (static_cast<void *>(p)) U(std::forward<Args>(args)...);
    }
};

/* The cache as a memory resource: one for the process, which outlives it. */
[[nodiscard]] inline std::pmr::memory_resource *resource() noexcept
{
    class cache final : public std::pmr::memory_resource
    {
        void *do_allocate(std::size_t bytes, std::size_t alignment) override
        {
            return detail::allocate(bytes, alignment);
        }
        void do_deallocate(void *p, std::size_t bytes, std::size_t) override
        {
            zkn_free_sized(p, bytes);
        }
        bool do_is_equal(const memory_resource &other) const noexcept override
        {
            return this == &other;
        }
    };
    /* Never destroyed: static containers may outlive any static object. */
    alignas(cache) static std::byte place[sizeof(cache)];
    static cache *const only = ::new (static_cast<void *>(place)) cache;
    return only;
}

/* ------------------------------------------------------------------ buffers */

/* COUNT elements of a type that is bytes and nothing more. */
template <class T> class unique_buffer
{
    static_assert(std::is_trivially_copyable_v<T> &&
                      std::is_trivially_destructible_v<T>,
                  "a buffer moves its elements as bytes");
    static_assert(alignof(T) <= detail::natural_alignment,
                  "use std::vector with zkn::allocator for such alignments");

  public:
    unique_buffer() noexcept = default;

    /* Elements of unspecified value. */
    explicit unique_buffer(std::size_t count)
        : data_(static_cast<T *>(
              detail::allocate(detail::bytes_of<T>(count), alignof(T)))),
          size_(count)
    {
    }

    /* Elements all of whose bytes are zero; pages that are known to be zero
     * are not touched. */
    [[nodiscard]] static unique_buffer zeroed(std::size_t count)
    {
        unique_buffer buffer;
        void *p = zkn_calloc(count, sizeof(T));
        if (p == nullptr)
            throw std::bad_alloc();
        buffer.data_ = static_cast<T *>(p);
        buffer.size_ = count;
        return buffer;
    }

    unique_buffer(unique_buffer &&other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0))
    {
    }
    unique_buffer &operator=(unique_buffer &&other) noexcept
    {
        unique_buffer(std::move(other)).swap(*this);
        return *this;
    }
    unique_buffer(const unique_buffer &) = delete;
    unique_buffer &operator=(const unique_buffer &) = delete;
    ~unique_buffer()
    {
        zkn_free(data_);
    }

    /* Large buffers grow where they are or by moving page tables; further
     * elements have unspecified values.  Pointers into the buffer end. */
    void resize(std::size_t count)
    {
        /* zkn_realloc(p, 0) frees. */
        std::size_t bytes = detail::bytes_of<T>(count);
        void *p = zkn_realloc(data_, bytes > 0 ? bytes : 1);
        if (p == nullptr)
            throw std::bad_alloc();
        data_ = static_cast<T *>(p);
        size_ = count;
    }

    /* Hand the memory over; release it with zkn_free(). */
    [[nodiscard]] T *release() noexcept
    {
        size_ = 0;
        return std::exchange(data_, nullptr);
    }

    void swap(unique_buffer &other) noexcept
    {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
    }

    [[nodiscard]] T *data() noexcept
    {
        return data_;
    }
    [[nodiscard]] const T *data() const noexcept
    {
        return data_;
    }
    [[nodiscard]] std::size_t size() const noexcept
    {
        return size_;
    }
    [[nodiscard]] bool empty() const noexcept
    {
        return size_ == 0;
    }
    T &operator[](std::size_t i) noexcept
    {
        return data_[i];
    }
    const T &operator[](std::size_t i) const noexcept
    {
        return data_[i];
    }
    T *begin() noexcept
    {
        return data_;
    }
    T *end() noexcept
    {
        return data_ + size_;
    }
    const T *begin() const noexcept
    {
        return data_;
    }
    const T *end() const noexcept
    {
        return data_ + size_;
    }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/* ------------------------------------------------------------------- arenas */

/* What zknalloc.h says of arenas holds here: any number of threads may
 * allocate; reset, rewind and destruction free what all of them have. */
class arena
{
  public:
    /* FLAGS: ZKN_ARENA_* or 0. */
    explicit arena(std::size_t capacity, unsigned flags = 0)
        : handle_(zkn_arena_create(capacity, flags))
    {
        if (handle_ == nullptr)
            detail::fail(errno, "zkn_arena_create");
    }

    /* COUNT elements of unspecified value.  Nothing is destroyed, so the type
     * must not need it. */
    template <class T> [[nodiscard]] T *alloc(std::size_t count)
    {
        static_assert(std::is_trivially_default_constructible_v<T> &&
                          std::is_trivially_destructible_v<T>,
                      "an arena runs no constructors and no destructors");
        return static_cast<T *>(
            allocate(detail::bytes_of<T>(count), alignof(T)));
    }

    [[nodiscard]] void *allocate(std::size_t bytes, std::size_t alignment)
    {
        void *p = zkn_arena_alloc(get(), bytes, alignment);
        if (p == nullptr)
            detail::fail(errno, "zkn_arena_alloc");
        return p;
    }

    void reset() noexcept
    {
        zkn_arena_reset(get());
    }

    /* Frees at its end what was allocated from the arena since its begin.  Ends
     * before the arena does. */
    class scope
    {
      public:
        explicit scope(arena &of)
            : handle_(of.get()), mark_(zkn_arena_mark(handle_))
        {
            if (mark_ < 0)
                detail::fail(-mark_, "zkn_arena_mark");
        }
        scope(const scope &) = delete;
        scope &operator=(const scope &) = delete;
        /* A mark that has ended by a reset has nothing left to free. */
        ~scope()
        {
            (void)zkn_arena_rewind(handle_, mark_);
        }

      private:
        zkn_arena_t *handle_;
        int mark_;
    };

    [[nodiscard]] std::size_t used() const noexcept
    {
        return zkn_arena_used(get());
    }
    [[nodiscard]] std::size_t peak() const noexcept
    {
        return zkn_arena_peak(get());
    }
    [[nodiscard]] std::size_t capacity() const noexcept
    {
        return zkn_arena_capacity(get());
    }
    [[nodiscard]] zkn_arena_t *get() const noexcept
    {
        return handle_.get();
    }

  private:
    struct destroy {
        void operator()(zkn_arena_t *a) const noexcept
        {
            zkn_arena_destroy(a);
        }
    };
    std::unique_ptr<zkn_arena_t, destroy> handle_;
};

/* An arena for std::pmr containers, which give nothing back until its reset:
 * destroy them first.  Does not own the arena. */
class arena_resource final : public std::pmr::memory_resource
{
  public:
    explicit arena_resource(arena &of) noexcept : arena_(&of)
    {
    }

  private:
    void *do_allocate(std::size_t bytes, std::size_t alignment) override
    {
        return arena_->allocate(bytes, alignment);
    }
    void do_deallocate(void *, std::size_t, std::size_t) noexcept override
    {
    }
    bool do_is_equal(const memory_resource &other) const noexcept override
    {
        return this == &other;
    }

    arena *arena_;
};

/* ------------------------------------------------------------------ secrets */

enum class access : int {
    none = ZKN_SECRET_NO_ACCESS,
    read_only = ZKN_SECRET_READ_ONLY,
    read_write = ZKN_SECRET_READ_WRITE,
};

/* SIZE bytes for a key or a witness: see zknalloc.h for what is protected. */
class secret
{
  public:
    /* FLAGS: ZKN_SECRET_REQUIRE_LOCK or 0. */
    explicit secret(std::size_t size, unsigned flags = 0)
        : handle_(zkn_secret_create(size, flags))
    {
        if (handle_ == nullptr)
            detail::fail(errno, "zkn_secret_create");
    }

    [[nodiscard]] std::byte *data() noexcept
    {
        return static_cast<std::byte *>(zkn_secret_data(get()));
    }
    [[nodiscard]] const std::byte *data() const noexcept
    {
        return static_cast<const std::byte *>(zkn_secret_data(get()));
    }
    [[nodiscard]] std::size_t size() const noexcept
    {
        return zkn_secret_size(get());
    }
    /* What was achieved: ZKN_SECRET_LOCKED and the others. */
    [[nodiscard]] unsigned info() const noexcept
    {
        return zkn_secret_info(get());
    }
    void protect(access allowed)
    {
        if (int error = zkn_secret_protect(get(), static_cast<int>(allowed)))
            detail::fail(-error, "zkn_secret_protect");
    }
    void wipe()
    {
        if (int error = zkn_secret_wipe(get()))
            detail::fail(-error, "zkn_secret_wipe");
    }
    [[nodiscard]] zkn_secret_t *get() const noexcept
    {
        return handle_.get();
    }

    /* In a time that depends on the sizes alone. */
    friend bool operator==(const secret &a, const secret &b) noexcept
    {
        return a.size() == b.size() &&
               zkn_secret_equal(a.data(), b.data(), a.size());
    }
    friend bool operator!=(const secret &a, const secret &b) noexcept
    {
        return !(a == b);
    }

  private:
    struct destroy {
        void operator()(zkn_secret_t *s) const noexcept
        {
            zkn_secret_destroy(s);
        }
    };
    std::unique_ptr<zkn_secret_t, destroy> handle_;
};

} // namespace zkn

#endif /* ZKNALLOC_HPP */
