// What the parts of the driver share: numbers that are the same everywhere, and hashes of results.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace driver {

// splitmix64 (Steele, Lea, Flood 2014); its numbers are exact in both types
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return double(int64_t(next() >> 40) - (int64_t(1) << 23)) * 0x1p-23; } // [-1, 1)
  template <class T> std::vector<T> array(size_t n, double bound = 1) {
    std::vector<T> a(n);
    for (T &v : a) v = T(uniform() * bound);
    return a;
  }
};

// FNV-1a over bytes. NaNs count as one number: which operand's payload survives is the instruction set's choice.
template <class T> uint64_t hash(const std::vector<T> &a) {
  uint64_t h = 0xcbf29ce484222325u;
  for (T v : a) {
    if (v != v) v = T(NAN);
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &v, sizeof(T));
    if (v != v) std::memset(bytes, 0x7f, sizeof(T));
    for (const unsigned char byte : bytes) h = (h ^ byte) * 0x100000001b3u;
  }
  return h;
}

template <class T> using Results = std::map<std::string, std::vector<T>>;

// ---- digest

template <class T> void print(const std::string &name, const Results<T> &results) {
  for (const auto &[key, values] : results)
    std::printf("%s %s %016llx\n", name.c_str(), key.c_str(), static_cast<unsigned long long>(hash(values)));
}

// ---- check

inline int compared = 0, failed = 0;

template <class T> bool same(const Results<T> &got, const Results<T> &want, const std::string &what) {
  bool good = true;
  for (const auto &[key, values] : got) {
    const std::vector<T> &expected = want.at(key);
    ++compared;
    if (values.size() == expected.size() &&
        (values.empty() || std::memcmp(values.data(), expected.data(), values.size() * sizeof(T)) == 0))
      continue;
    good = false;
    ++failed;
    std::fprintf(stderr, "%s: %s differs\n", what.c_str(), key.c_str());
  }
  return good;
}

} // namespace driver
