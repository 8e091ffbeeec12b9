// Aligned memory for packed weights, tapes and scratch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace fastrnn {

// a * b, or std::bad_alloc where the product does not fit: absurd sizes become MemoryError
inline size_t product(size_t a, size_t b) {
  size_t c;
  if (__builtin_mul_overflow(a, b, &c) || c > SIZE_MAX / 4) throw std::bad_alloc();
  return c;
}
template <class... Rest> size_t product(size_t a, size_t b, Rest... rest) { return product(product(a, b), rest...); }

// multiple: a power of two, as the lanes of a register are. A division would cost a short call as much as an array.
inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) & ~(multiple - 1); }

// Cache-line aligned memory. From 64 KiB on from a pool of blocks that earlier calls returned, from some megabytes on
// in huge pages where the system has them: page faults would cost a training step a seventh of its time. The pool
// holds 2 GiB at most; blocks of a megabyte and more the kernel may take back when memory is short.
void *allocate_bytes(size_t n); // null where there is none
void release_bytes(void *p, size_t n);
inline bool pooled(size_t bytes) { return bytes >= size_t(64) << 10; }

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
  ~Buffer() {
    if (data_) release_bytes(data_, bytes());
  }

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
