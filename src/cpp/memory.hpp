// Aligned memory for packed weights, tapes and scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastrnn {

// a * b, or std::bad_alloc where the product does not fit: absurd sizes become MemoryError
inline size_t product(size_t a, size_t b) {
  size_t c;
  if (__builtin_mul_overflow(a, b, &c) || c > SIZE_MAX / 4) throw std::bad_alloc();
  return c;
}
template <class... Rest> size_t product(size_t a, size_t b, Rest... rest) { return product(product(a, b), rest...); }

inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Cache-line aligned. From some megabytes on, in huge pages where the system has them: a page fault each 4 KiB
// would cost a long tape more time than filling it.
inline void *allocate_bytes(size_t n) {
#if defined(__linux__)
  constexpr size_t huge_page = size_t(2) << 20;
  if (n >= 2 * huge_page) {
    void *p = std::aligned_alloc(huge_page, round_up(n, huge_page));
    if (p) madvise(p, n / huge_page * huge_page, MADV_HUGEPAGE);
    return p;
  }
#endif
  return std::aligned_alloc(64, round_up(n, 64));
}

// Cache-line aligned, not initialised unless zeroed.
template <class T> class Buffer {
public:
  Buffer() = default;
  explicit Buffer(size_t n) : size_(n) {
    if (n == 0) return;
    data_ = static_cast<T *>(allocate_bytes(product(n, sizeof(T))));
    if (!data_) throw std::bad_alloc();
  }
  static Buffer zeroed(size_t n) {
    Buffer b(n);
    if (n) std::memset(b.data_, 0, n * sizeof(T));
    return b;
  }
  Buffer(Buffer &&o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  Buffer &operator=(Buffer &&o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { std::free(data_); }

  T *get() { return data_; }
  const T *get() const { return data_; }
  T &operator[](size_t i) { return data_[i]; }
  const T &operator[](size_t i) const { return data_[i]; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

private:
  T *data_ = nullptr;
  size_t size_ = 0;
};

} // namespace fastrnn
