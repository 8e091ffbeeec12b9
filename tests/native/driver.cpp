// The core without Python: for sanitizers, cross-compiled kernel sets and other compilers.
//
//   driver digest    a hash of every output and gradient of many cases, one line each; the kernel set is
//                    FASTRNN_ISA's. Two builds that agree bit for bit print the same text.
//   driver check     the same bits for 1..3 threads however they share the work, frozen, checkpointed, with the
//                    input product inside the step, a row alone, a stream
//   driver threads   several callers at once on shared packed weights, each call with 2 to 4 threads
//
// check and threads return 1 after naming what differed.
#include <thread>

#include "engine/layer.hpp"
#include "engine/stream.hpp"
#include "kernels/dispatch.hpp"
#include "results.hpp"
#include "runtime/callers.hpp"
#include "training.hpp"

namespace {

using namespace fastrnn;
using namespace driver;

// ---- a case: a network, its parameters, and numbers for everything that goes in -----------------------

enum class Numbers { ordinary, tiny, broken }; // broken: one row has a NaN, another an infinity

struct Sizes {
  size_t input, hidden, steps, rows, layers, directions;
  bool ragged = false, resets = false;
  Numbers numbers = Numbers::ordinary;
};

// Options that between them have every kind of activation, clipping and peepholes.
std::shared_ptr<const CellSettings> settings_of(Cell cell) {
  typedef CellFunction F;
  auto settings = std::make_shared<CellSettings>();
  const CellSettings::Function functions[2][CellSettings::most_gates + 1] = {
      {{F::hard_sigmoid, 0.2, 0.5}, {F::softplus, 0, 0}, {F::elu, 0.5, 0}, {F::sigmoid, 0, 0}, {F::softsign, 0, 0}},
      {{F::scaled_tanh, 1.1, 0.7}, {F::affine, 0.3, 0.1}, {F::leaky_relu, 0.1, 0}, {F::tanh, 0, 0}, {F::tanh, 0, 0}}};
  for (size_t d = 0; d < 2; ++d)
    for (size_t i = 0; i <= CellSettings::most_gates; ++i) settings->functions[d][i] = functions[d][i];
  settings->clip = 0.9;
  settings->peepholes = is_lstm(cell);
  if (cell == Cell::rnn_general) settings->leak = 0.4;
  if (cell == Cell::gru_general) settings->zoneout_h = 0.2;
  return settings;
}

template <class T> struct Case {
  Shape shape;
  size_t steps, rows;
  std::vector<T> flat, x, h0, c0, dy, dh_n, dc_n;
  std::vector<int64_t> lengths;
  std::vector<uint8_t> resets; // [steps][rows]

  Case(Cell cell, size_t proj, const Sizes &s) : steps(s.steps), rows(s.rows) {
    shape.cell = cell;
    shape.input = s.input;
    shape.hidden = s.hidden;
    shape.proj = proj;
    shape.layers = s.layers;
    shape.directions = s.directions;
    if (is_general(cell)) shape.settings = settings_of(cell);
    Random random{uint64_t(s.hidden * 1000 + s.steps * 10 + s.rows)};
    const double scale = s.numbers == Numbers::tiny ? sizeof(T) == 4 ? 0x1p-126 : 0x1p-1022 : 1;
    flat = random.array<T>(parameter_count(), 1.5 / std::sqrt(double(s.hidden)));
    x = random.array<T>(steps * rows * s.input, scale);
    h0 = random.array<T>(shape.count() * rows * shape.output(), scale);
    c0 = random.array<T>(shape.count() * rows * s.hidden, scale);
    dy = random.array<T>(steps * rows * width(), scale);
    dh_n = random.array<T>(h0.size(), scale);
    dc_n = random.array<T>(c0.size(), scale);
    if (s.numbers == Numbers::broken) {
      x[(steps / 2 * rows) * s.input] = T(NAN);
      x[(steps / 2 * rows + rows - 1) * s.input] = T(INFINITY);
    }
    if (s.ragged)
      for (size_t b = 0; b < rows; ++b)
        lengths.push_back(b == 0 ? int64_t(steps) : b == 1 ? 0 : int64_t(random.next() % (steps + 1)));
    if (s.resets)
      for (size_t i = 0; i < steps * rows; ++i) resets.push_back(random.next() % 4 == 0);
  }

  size_t width() const { return shape.directions * shape.output(); }
  size_t length(size_t b) const { return lengths.empty() ? steps : size_t(lengths[b]); }
  size_t parameter_count() const {
    size_t n = 0;
    for (size_t i = 0; i < shape.count(); ++i)
      n += shape.gates() * shape.hidden * (shape.layer_input(i / shape.directions) + shape.output() + 2) +
           shape.proj * shape.hidden + (shape.peepholes() ? 3 * shape.hidden : 0);
    return n;
  }
  template <class P> std::vector<Parameters<P>> parameters(P *at) const {
    std::vector<Parameters<P>> all(shape.count());
    const size_t GH = shape.gates() * shape.hidden;
    auto next = [&](size_t n) { return std::exchange(at, at + n); };
    for (size_t i = 0; i < all.size(); ++i) {
      all[i].w_ih = next(GH * shape.layer_input(i / shape.directions));
      all[i].w_hh = next(GH * shape.output());
      all[i].b_ih = next(GH);
      all[i].b_hh = next(GH);
      if (shape.proj) all[i].w_hr = next(shape.proj * shape.hidden);
      if (!shape.peepholes()) continue;
      for (const auto member : {&Parameters<P>::w_ci, &Parameters<P>::w_cf, &Parameters<P>::w_co})
        all[i].*member = next(shape.hidden);
    }
    return all;
  }
  Batch batch() const {
    Batch b(steps, rows, lengths.empty() ? nullptr : lengths.data());
    if (!resets.empty())
      b.set_reset([&](size_t t, size_t row) { return resets[t * rows + row] != 0; }, int(shape.directions));
    return b;
  }
  template <class P> View<P> view(P *base, size_t row_width) const {
    View<P> v;
    v.base = base;
    v.time = ptrdiff_t(rows * row_width);
    v.row.assign(rows, 0);
    for (size_t b = 0; b < rows; ++b) v.row[b] = ptrdiff_t(b * row_width);
    return v;
  }
  // this case with nothing but row b
  Case row(size_t b) const {
    Case one = *this;
    one.rows = 1;
    auto take = [&](std::vector<T> &a, size_t count, size_t w) {
      std::vector<T> some;
      for (size_t i = 0; i < count; ++i)
        some.insert(some.end(), a.begin() + ptrdiff_t((i * rows + b) * w),
                    a.begin() + ptrdiff_t((i * rows + b + 1) * w));
      a = some;
    };
    take(one.x, steps, shape.input);
    take(one.dy, steps, width());
    for (auto *a : {&one.h0, &one.dh_n}) take(*a, shape.count(), shape.output());
    for (auto *a : {&one.c0, &one.dc_n}) take(*a, shape.count(), shape.hidden);
    if (!lengths.empty()) one.lengths = {lengths[b]};
    if (!resets.empty()) {
      one.resets.clear();
      for (size_t t = 0; t < steps; ++t) one.resets.push_back(resets[t * rows + b]);
    }
    return one;
  }
};

// ---- calls --------------------------------------------------------------------------------------------

struct Way {
  Plan plan;
  size_t checkpoint = 0;
  bool frozen = false;
};

template <class T> std::shared_ptr<Packed<T>> pack(const Case<T> &c, bool now, const Plan &plan = {}) {
  auto packed = std::make_shared<Packed<T>>(kernels().of<T>(), c.shape, c.parameters(c.flat.data()), true, true,
                                            plan.in_pieces, plan.w_in_pieces);
  if (now) packed->pack({nullptr, 0, 0, 1});
  return packed;
}

// Forward and, with train, backward. weights: frozen ones, or null.
template <class T> Results<T> run(const Case<T> &c, const Way &way, bool train, Packed<T> *weights = nullptr) {
  const Kernels<T> &k = kernels().of<T>();
  const Shape &shape = c.shape;
  const std::shared_ptr<Packed<T>> own = weights ? nullptr : pack(c, way.frozen, way.plan);
  Packed<T> &packed = weights ? *weights : *own;
  const bool packs = !weights && !way.frozen;
  const Batch batch = c.batch();
  Execution how{way.plan, caches().l2, nullptr, Lease(way.plan.threads - 1, true)};

  Results<T> out;
  auto array = [&](const char *name, size_t n) -> std::vector<T> & { return out[name] = std::vector<T>(n); };
  Arrays<T> arrays;
  arrays.x = c.view(c.x.data(), shape.input);
  arrays.h0 = c.h0.data();
  arrays.y = c.view(array("y", c.dy.size()).data(), c.width());
  arrays.h_n = array("h_n", c.h0.size()).data();
  if (shape.has_c()) {
    arrays.c0 = c.c0.data();
    arrays.c_n = array("c_n", c.c0.size()).data();
  }
  std::unique_ptr<Tape<T>> tape;
  if (train) {
    tape = std::make_unique<Tape<T>>(batch, std::min(way.checkpoint, batch.steps));
    allocate(*tape, k, shape, c.steps * c.rows, false);
  }
  forward(k, shape, packed, packs, tape ? tape->batch : batch, arrays, tape.get(), how);
  if (!train) return out;

  Gradients<T> g;
  g.dy = c.view(c.dy.data(), c.width());
  g.dh_n = c.dh_n.data();
  g.dx = c.view(array("dx", c.x.size()).data(), shape.input);
  g.dh0 = array("dh0", c.h0.size()).data();
  if (shape.has_c()) {
    g.dc_n = c.dc_n.data();
    g.dc0 = array("dc0", c.c0.size()).data();
  }
  g.parameters = c.parameters(array("dparameters", c.flat.size()).data());
  backward(k, shape, packed, packs, *tape, arrays, g, how);
  return out;
}

// Small weights, which only float32 has.
const WeightsType small_weights[] = {WeightsType::bfloat16, WeightsType::int8};
std::string name_of(WeightsType type) { return type == WeightsType::int8 ? "-int8" : "-bfloat16"; }
std::shared_ptr<Packed<float>> pack_low(const Case<float> &c, WeightsType type) {
  auto packed =
      std::make_shared<Packed<float>>(kernels().f32, c.shape, c.parameters(c.flat.data()), type, *kernels().low(type));
  const FlushSubnormals mode; // as the bindings have it
  packed->pack({nullptr, 0, 0, 1});
  return packed;
}

// The same steps one at a time; layers in one direction, no lengths, no resets.
template <class T> Results<T> run_stream(const Case<T> &c, std::shared_ptr<const Packed<T>> weights) {
  Stream<T> stream(kernels().of<T>(), c.shape, std::move(weights), c.rows);
  stream.set_state(c.h0.data(), c.shape.has_c() ? c.c0.data() : nullptr);
  Results<T> out;
  out["y"].resize(c.dy.size());
  out["h_n"].resize(c.h0.size());
  if (c.shape.has_c()) out["c_n"].resize(c.c0.size());
  const FlushSubnormals mode;
  for (size_t t = 0; t < c.steps; ++t)
    stream.step(out["y"].data() + t * c.rows * c.width(), c.x.data() + t * c.rows * c.shape.input);
  stream.get_state(out["h_n"].data(), c.shape.has_c() ? out["c_n"].data() : nullptr);
  return out;
}

// ---- the cases ----------------------------------------------------------------------------------------

const struct {
  const char *name;
  Cell cell;
  bool proj;
} kinds[] = {{"rnn_tanh", Cell::rnn_tanh, false},
             {"rnn_relu", Cell::rnn_relu, false},
             {"lstm", Cell::lstm, false},
             {"lstm-proj", Cell::lstm, true},
             {"gru", Cell::gru, false},
             {"gru_before", Cell::gru_before, false},
             {"rnn_general", Cell::rnn_general, false},
             {"lstm_general", Cell::lstm_general, false},
             {"lstm_general-proj", Cell::lstm_general, true},
             {"gru_general", Cell::gru_general, false},
             {"gru_before_general", Cell::gru_before_general, false}};

std::string name_of(const char *kind, bool is_double, const Sizes &s) {
  std::string name = kind + std::string(is_double ? "-f64" : "-f32");
  const std::pair<const char *, size_t> letters[] = {{"I", s.input}, {"H", s.hidden}, {"T", s.steps},
                                                     {"B", s.rows},  {"L", s.layers}, {"D", s.directions}};
  for (const auto &[letter, n] : letters) name += "-" + (letter + std::to_string(n));
  if (s.ragged) name += "-ragged";
  if (s.resets) name += "-resets";
  if (s.numbers != Numbers::ordinary) name += s.numbers == Numbers::tiny ? "-tiny" : "-broken";
  return name;
}

template <class T, class F> void each_kind(const Sizes &s, F &&body) {
  for (const auto &kind : kinds) {
    const size_t proj = kind.proj ? (s.hidden + 1) / 2 : 0;
    body(name_of(kind.name, sizeof(T) == 8, s), Case<T>(kind.cell, proj, s));
  }
}

// ---- digest -------------------------------------------------------------------------------------------

// tanh and sigmoid at every 4099th pattern of 32 bits (NaNs left out), and as many numbers in double
template <class T> void digest_functions(const char *type) {
  std::vector<T> in, out;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 4099) {
    const uint32_t low = uint32_t(bits);
    float f;
    std::memcpy(&f, &low, 4);
    if (f == f) in.push_back(T(f));
  }
  out.resize(in.size());
  const FlushSubnormals mode;
  kernels().of<T>().tanh(out.data(), in.data(), in.size());
  print<T>(std::string("tanh-") + type, {{"values", out}});
  kernels().of<T>().sigmoid(out.data(), in.data(), in.size());
  print<T>(std::string("sigmoid-") + type, {{"values", out}});
}

const Sizes digest_sizes[] = {
    {1, 1, 1, 1, 1, 1},
    {3, 2, 4, 2, 2, 2},
    {5, 7, 6, 3, 1, 1, true, true},
    {17, 16, 9, 5, 2, 2, true},
    {4, 33, 8, 9, 1, 2, false, true},
    {40, 64, 12, 4, 2, 1},
    {8, 50, 20, 13, 1, 1, true},
    {70, 129, 5, 26, 1, 1},
    {2, 24, 300, 1, 1, 1},
    {150, 37, 1, 7, 1, 2},
    {6, 20, 10, 4, 1, 2, false, false, Numbers::tiny},
    {6, 20, 10, 4, 2, 1, false, false, Numbers::broken},
};

template <class T> int digest() {
  digest_functions<T>(sizeof(T) == 8 ? "f64" : "f32");
  for (const Sizes &s : digest_sizes)
    each_kind<T>(s, [](const std::string &name, const Case<T> &c) {
      Way way;
      way.plan.fuse_input = way.plan.in_pieces = c.steps == 1 && c.shape.one_product(); // as the schedule has it
      way.plan.w_in_pieces = way.plan.fuse_input;
      print(name, run(c, way, true));
      if constexpr (std::is_same_v<T, float>)
        for (const WeightsType type : small_weights)
          if (!c.shape.settings) print(name + name_of(type), run(c, {}, false, pack_low(c, type).get()));
    });
  for (const StepSizes &s : step_sizes) print(step_name<T>(s), run_step<T>(s, 1));
  return 0;
}

// ---- check --------------------------------------------------------------------------------------------

std::vector<Way> ways(const Shape &shape, size_t steps) {
  std::vector<Way> all;
  for (const Split split : {Split::rows, Split::units, Split::wavefront, Split::pipelined})
    for (int threads = 1; threads <= 3; ++threads)
      for (const size_t checkpoint : {size_t(0), size_t(4)})
        for (const bool fuse : {false, true}) {
          if (fuse && resets_before(shape.cell)) continue;
          Way way;
          way.plan.threads = threads;
          way.plan.split = split;
          way.plan.fuse_input = fuse;
          way.checkpoint = checkpoint;
          way.frozen = threads == 2;
          all.push_back(way);
          way.plan.w_in_pieces = !way.frozen;
          if (way.plan.w_in_pieces) all.push_back(way);
          // the input product of a single step is inside it
          way.plan.in_pieces = steps <= 6 && (fuse || steps > 1) && shape.one_product() && !way.frozen;
          if (way.plan.in_pieces) all.push_back(way);
          if (!way.plan.has_shares()) continue;
          way.plan.in_pieces = way.plan.w_in_pieces = false;
          way.plan.paced = true;
          all.push_back(way);
        }
  return all;
}

const char *name_of(Split split) {
  const char *const names[] = {"rows", "units", "wavefront", "pipelined"};
  return names[int(split)];
}
std::string name_of(const Way &way) {
  return std::string(" ") + name_of(way.plan.split) + " x " + std::to_string(way.plan.threads) + " checkpoint " +
         std::to_string(way.checkpoint) + (way.plan.fuse_input ? " fused" : "") +
         (way.plan.in_pieces     ? " in pieces"
          : way.plan.w_in_pieces ? " W in pieces"
                                 : "") +
         (way.plan.paced ? " paced" : "") + (way.frozen ? " frozen" : "");
}

const Sizes check_sizes[] = {
    {1, 1, 1, 1, 1, 1},           {5, 7, 6, 3, 2, 2, true, true},    {3, 130, 9, 5, 1, 1},
    {20, 64, 11, 10, 2, 1, true}, {2, 40, 13, 6, 2, 2, false, true}, {140, 40, 1, 7, 2, 2},
    {6, 70, 5, 7, 1, 1},          {7, 16, 25, 4, 1, 2, true, true},  {9, 40, 3, 1, 2, 2, false, true},
};

template <class T> void check_case(const std::string &name, const Case<T> &c) {
  const Results<T> want = run(c, {}, true);
  for (const Way &way : ways(c.shape, c.steps)) {
    same(run(c, way, true), want, name + name_of(way));
    same(run(c, way, false), want, name + " inference" + name_of(way));
  }
  for (size_t b = 0; b < c.rows; ++b) {
    const Case<T> alone = c.row(b);
    Results<T> got = run(alone, {}, true), part;
    // of the whole batch, what belongs to this row
    for (const auto &[key, values] : want) {
      if (key == "dparameters") continue; // a sum over rows
      const bool sequence = key == "y" || key == "dx";
      const size_t count = sequence ? c.steps : c.shape.count(), w = count ? values.size() / count / c.rows : 0;
      for (size_t i = 0; i < count; ++i)
        part[key].insert(part[key].end(), values.begin() + ptrdiff_t((i * c.rows + b) * w),
                         values.begin() + ptrdiff_t((i * c.rows + b + 1) * w));
    }
    got.erase("dparameters");
    same(got, part, name + " row " + std::to_string(b) + " alone");
  }
  if (c.shape.directions == 1 && c.lengths.empty() && c.resets.empty())
    same(run_stream<T>(c, pack(c, true)), want, name + " stream");
}

void check_low(const std::string &name, const Case<float> &c, WeightsType type) {
  if (c.shape.settings) return; // cells with options have no small weights
  const auto weights = pack_low(c, type);
  const Results<float> want = run(c, {}, false, weights.get());
  for (const Way &way : ways(c.shape, c.steps))
    if (way.frozen && !way.checkpoint && !way.plan.fuse_input)
      same(run(c, way, false, weights.get()), want, name + name_of(way));
  for (size_t b = 0; b < c.rows; ++b) {
    const Results<float> alone = run(c.row(b), {}, false, weights.get());
    Results<float> got, part;
    const size_t w = c.width();
    got["y"] = alone.at("y");
    for (size_t t = 0; t < c.steps; ++t)
      part["y"].insert(part["y"].end(), want.at("y").begin() + ptrdiff_t((t * c.rows + b) * w),
                       want.at("y").begin() + ptrdiff_t((t * c.rows + b + 1) * w));
    same(got, part, name + " row " + std::to_string(b) + " alone");
  }
  if (c.shape.directions == 1 && c.lengths.empty() && c.resets.empty())
    same(run_stream<float>(c, weights), want, name + " stream");
}

template <class T> int check() {
  shuffle_shares(1); // those of paced threads
  for (const Sizes &s : check_sizes) each_kind<T>(s, check_case<T>);
  if constexpr (std::is_same_v<T, float>)
    for (const WeightsType type : small_weights)
      for (const Sizes &s : check_sizes)
        each_kind<float>(
            s, [&](const std::string &name, const Case<float> &c) { check_low(name + name_of(type), c, type); });
  for (const StepSizes &s : step_sizes)
    for (const int threads : {2, 3}) same(run_step<T>(s, threads), run_step<T>(s, 1), step_name<T>(s));
  return failed ? 1 : 0;
}

// ---- threads ------------------------------------------------------------------------------------------

// Callers share packed weights, as frozen layers do; each call runs a team of its own, and streams go on beside.
template <class T> int threads(int callers, int rounds) {
  std::atomic<int> wrong{0};
  const Sizes sizes[] = {{5, 40, 12, 8, 2, 2, true, true}, {3, 72, 10, 6, 2, 1}};
  for (const Sizes &s : sizes)
    each_kind<T>(s, [&](const std::string &name, const Case<T> &c) {
      const Results<T> want = run(c, {}, true);
      const auto shared = pack(c, true);
      std::vector<std::thread> team;
      for (int caller = 0; caller < callers; ++caller)
        team.emplace_back([&, caller] {
          for (int round = 0; round < rounds; ++round) {
            Way way;
            way.plan.threads = 2 + (caller + round) % 3;
            way.plan.split = Split((caller + round) % 4);
            way.plan.paced = round % 3 == 0 && way.plan.has_shares();
            way.checkpoint = round % 2 ? 4 : 0;
            const bool frozen = (caller + round) % 2 == 0;
            set_num_threads(2 + caller % 3); // what any thread of a program may do at any time
            if (num_threads() < 1) ++wrong;
            Results<T> got = run(c, way, true, frozen ? shared.get() : nullptr);
            for (const auto &[key, values] : want)
              if (got.at(key) != values) ++wrong;
            if (s.directions == 1 && run_stream<T>(c, shared).at("y") != want.at("y")) ++wrong;
          }
        });
      for (auto &thread : team) thread.join();
      ++compared;
      if (wrong) std::fprintf(stderr, "%s: callers at once: %d arrays differ\n", name.c_str(), wrong.load());
    });
  for (const StepSizes &s : step_sizes) {
    const Results<T> want = run_step<T>(s, 1);
    std::vector<std::thread> team;
    for (int caller = 0; caller < callers; ++caller)
      team.emplace_back([&, caller] {
        for (int round = 0; round < rounds; ++round)
          if (run_step<T>(s, 2 + (caller + round) % 3) != want) ++wrong;
      });
    for (auto &thread : team) thread.join();
    ++compared;
    if (wrong) std::fprintf(stderr, "%s: callers at once: some differ\n", step_name<T>(s).c_str());
  }
  return wrong ? 1 : 0;
}

} // namespace

int main(int argc, char **argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "digest") return digest<float>() | digest<double>();
  if (mode == "check") {
    const int status = check<float>() | check<double>();
    std::printf("%s: %d arrays compared, %d differ\n", kernels().name, compared, failed);
    return status;
  }
  if (mode == "threads") {
    const int rounds = argc > 2 ? std::atoi(argv[2]) : 6;
    const int status = threads<float>(4, rounds) | threads<double>(4, rounds);
    std::printf("%s: %d cases with 4 callers at once, %s\n", kernels().name, compared,
                status ? "some differ" : "all equal");
    return status;
  }
  std::fprintf(stderr, "usage: driver digest | check | threads [rounds]\n");
  return 2;
}
