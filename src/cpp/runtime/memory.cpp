#include "runtime/memory.hpp"

#include <algorithm>
#include <atomic>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastrnn {

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t most_pooled = 0; // a block in the pool would look alive to a sanitizer
#else
constexpr size_t most_pooled = size_t(2) << 30; // a training step of an LSTM of 4096 units frees 1.6 GB
#endif
constexpr size_t line = 64, page = 4096, huge_page = size_t(2) << 20, freed_from = size_t(1) << 20;

// Blocks of the pool: Windows has functions of its own for them.
#if defined(_WIN32)
void *aligned_block(size_t unit, size_t bytes) { return _aligned_malloc(bytes, unit); }
void free_block(void *at) { _aligned_free(at); }
#else
void *aligned_block(size_t unit, size_t bytes) { return std::aligned_alloc(unit, bytes); }
void free_block(void *at) { std::free(at); }
#endif

// where a block begins
size_t unit_of(size_t bytes) { return bytes >= huge_page * 3 / 4 ? huge_page : page; }
// What its size is rounded up to: one of at most eight sizes between a power of two and the next, so that calls of
// changing shapes find blocks of earlier ones. A block is used for requests of its own size alone, since the pool
// would forget what lies beyond a smaller one.
size_t block_size(size_t n) {
  size_t step = unit_of(n);
  while (step * 16 <= n) step *= 2;
  return round_up(n, step);
}

// Blocks nobody uses, those returned last at the end. A training step of some layers needs some fifty. Nobody ever
// waits for the pool: who finds it taken (another thread, or in a child forked at that moment for ever) goes to the
// system instead.
struct Pool {
  struct Block {
    void *at = nullptr;
    size_t bytes = 0;
  };
  static constexpr size_t most = 128;
  Block blocks[most];
  size_t count = 0, total = 0;
  std::atomic<bool> taken{false};

  bool take() { return !taken.exchange(true, std::memory_order_acquire); }
  void leave() { taken.store(false, std::memory_order_release); }

  void *remove(size_t i) {
    void *at = blocks[i].at;
    total -= blocks[i].bytes;
    std::copy(blocks + i + 1, blocks + count--, blocks + i);
    return at;
  }
  // the one returned last of this size
  void *find(size_t bytes) {
    for (size_t i = count; i-- > 0;)
      if (blocks[i].bytes == bytes) return remove(i);
    return nullptr;
  }
  void give_back() {
    while (count) free_block(remove(count - 1));
  }
  bool keep(void *at, size_t bytes) {
    if (bytes > most_pooled) return false;
    while (total + bytes > most_pooled || count == most) free_block(remove(0)); // nobody has wanted it for longest
    blocks[count++] = {at, bytes};
    total += bytes;
    return true;
  }
};
Pool pool;

} // namespace

void *allocate_bytes(size_t n) {
  if (!pooled(n)) { // malloc keeps blocks of the same size at hand, aligned_alloc does not
    void *const block = std::malloc(n + line + sizeof(void *));
    if (!block) return nullptr;
    const auto at = round_up(reinterpret_cast<uintptr_t>(block) + sizeof(void *), line);
    reinterpret_cast<void **>(at)[-1] = block;
    return reinterpret_cast<void *>(at);
  }
  const size_t unit = unit_of(n), bytes = block_size(n);
  if (pool.take()) {
    void *at = pool.find(bytes);
    pool.leave();
    if (at) return at;
  }
  void *at = aligned_block(unit, bytes);
  if (!at && pool.take()) { // what nobody uses may be what is missing
    pool.give_back();
    pool.leave();
    at = aligned_block(unit, bytes);
  }
#if defined(__linux__)
  if (at && unit == huge_page) madvise(at, bytes, MADV_HUGEPAGE);
#endif
  return at;
}

void release_bytes(void *p, size_t n) {
  if (!p) return;
  if (!pooled(n)) return std::free(static_cast<void **>(p)[-1]);
  if (pool.take()) {
    const size_t bytes = block_size(n);
    const bool kept = pool.keep(p, bytes);
#if defined(__linux__) && defined(MADV_FREE)
    // contents may go; pages stay as long as nobody else needs them. Small blocks stay as they are: telling the
    // kernel costs more than it would get back (128 MiB at the very most)
    if (kept && bytes >= freed_from) madvise(p, bytes, MADV_FREE);
#endif
    pool.leave();
    if (kept) return;
  }
  free_block(p);
}

} // namespace fastrnn
