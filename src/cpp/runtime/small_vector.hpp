// A vector of plain values that keeps the first few in itself: what a call of some rows lists asks for no memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <type_traits>
#include <vector>

namespace fastrnn {

template <class T> class SmallVector {
  static_assert(std::is_trivially_copyable_v<T>);

public:
  SmallVector() = default;
  SmallVector(std::initializer_list<T> values) : SmallVector(values.begin(), values.end()) {}
  template <class Iterator> SmallVector(Iterator from, Iterator to) {
    assign(size_t(to - from), T());
    std::copy(from, to, begin());
  }

  void assign(size_t n, T value) {
    size_ = n;
    if (n <= here)
      here_.fill(value);
    else
      beyond_.assign(n, value);
  }

  T *data() { return size_ <= here ? here_.data() : beyond_.data(); }
  const T *data() const { return size_ <= here ? here_.data() : beyond_.data(); }
  size_t size() const { return size_; }
  T *begin() { return data(); }
  T *end() { return data() + size_; }
  const T *begin() const { return data(); }
  const T *end() const { return data() + size_; }
  T &operator[](size_t i) { return data()[i]; }
  const T &operator[](size_t i) const { return data()[i]; }

  bool operator==(const SmallVector &o) const { return std::equal(begin(), end(), o.begin(), o.end()); }

private:
  static constexpr size_t here = 4;
  std::array<T, here> here_{};
  std::vector<T> beyond_; // all of them, where there are more
  size_t size_ = 0;
};

} // namespace fastrnn
