#include "memory.hpp"

#include <atomic>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastrnn {

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t most_pooled = 0; // a block in the pool would look alive to a sanitizer
#else
constexpr size_t most_pooled = size_t(256) << 20;
#endif
constexpr size_t page = 4096, huge_page = size_t(2) << 20;

// where a block begins and what its size is rounded up to
size_t unit_of(size_t bytes) { return bytes >= 2 * huge_page ? huge_page : page; }

// Blocks nobody uses. A few are enough: a call needs some ten. Nobody ever waits for the pool: who finds it taken
// (another thread, or in a child forked at that moment for ever) goes to the system instead.
struct Pool {
  struct Block {
    void *at = nullptr;
    size_t bytes = 0;
  };
  Block blocks[32];
  size_t total = 0;
  std::atomic<bool> taken{false};

  bool take() { return !taken.exchange(true, std::memory_order_acquire); }
  void leave() { taken.store(false, std::memory_order_release); }

  // the smallest that fits without wasting a quarter of it
  void *find(size_t bytes) {
    Block *best = nullptr;
    for (Block &b : blocks)
      if (b.at && b.bytes >= bytes && b.bytes - bytes <= b.bytes / 4 && (!best || b.bytes < best->bytes)) best = &b;
    if (!best) return nullptr;
    total -= best->bytes;
    void *at = best->at;
    *best = {};
    return at;
  }
  bool keep(void *at, size_t bytes) {
    if (total + bytes > most_pooled) return false;
    for (Block &b : blocks)
      if (!b.at) {
        b = {at, bytes};
        total += bytes;
        return true;
      }
    return false;
  }
};
Pool pool;

} // namespace

void *allocate_bytes(size_t n) {
  if (!pooled(n)) return std::aligned_alloc(64, round_up(n, 64));
  const size_t unit = unit_of(n), bytes = round_up(n, unit);
  if (pool.take()) {
    void *at = pool.find(bytes);
    pool.leave();
    if (at) return at;
  }
  void *at = std::aligned_alloc(unit, bytes);
#if defined(__linux__)
  if (at && unit == huge_page) madvise(at, bytes, MADV_HUGEPAGE);
#endif
  return at;
}

void release_bytes(void *p, size_t n) {
  if (p && pooled(n) && pool.take()) {
    const size_t bytes = round_up(n, unit_of(n));
    const bool kept = pool.keep(p, bytes);
#if defined(__linux__) && defined(MADV_FREE)
    if (kept) madvise(p, bytes, MADV_FREE); // contents may go; pages stay as long as nobody else needs them
#endif
    pool.leave();
    if (kept) return;
  }
  std::free(p);
}

} // namespace fastrnn
