// machine: what this machine has and can do, and single parts of the core. For show_config, benchmarks and tests.
#include <atomic>
#include <chrono>
#include <cmath>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "engine/schedule.hpp"
#include "kernels/dispatch.hpp"
#include "runtime/callers.hpp"
#include "runtime/team.hpp"

namespace fastrnn {

namespace {

py::dict counts(const Cpus &cpus) {
  return py::dict(py::arg("allowed") = cpus.allowed.size(), py::arg("cores") = cpus.cores,
                  py::arg("quota") = cpus.quota, py::arg("usable") = cpus.usable());
}

// The same for a system whose files lie below `root`, for tests.
py::dict count_cpus(const std::string &root, const py::sequence &allowed) {
  std::vector<int> cpus;
  for (const auto &cpu : allowed) cpus.push_back(py::cast<int>(cpu));
  return counts(read_cpus(root, std::move(cpus)));
}

py::dict config() {
  py::dict d;
  d["kernel_set"] = kernels().name;
  py::list available;
  for (const auto &name : available_kernel_sets()) available.append(name);
  d["available_kernel_sets"] = available;
  d["threads"] = num_threads();
  const ThreadLimits &limits = thread_limits();
  d["cpus"] = counts(limits.cpus);
  d["omp_num_threads"] = limits.from_openmp;
  const HelperCount helpers = count_helpers();
  d["helpers"] = py::dict(py::arg("all") = helpers.all, py::arg("awake") = helpers.awake);
  d["compiler"] = FASTRNN_COMPILER;
  d["cache_bytes"] = py::dict(py::arg("L1") = caches().l1, py::arg("L2") = caches().l2, py::arg("L3") = caches().l3);
  return d;
}

// body(index, n_threads) on so many threads at once, as far as there are helpers.
template <class F> void on_threads(int threads, F &&body) {
  Lease lease(threads - 1, true);
  struct Start {
    F &body;
    const int n_threads;
    std::atomic<int> ready{0};
    void run(int index) {
      ready.fetch_add(1);
      while (ready.load() < n_threads) yield_thread();
      body(index, n_threads);
    }
  } start{body, lease.size() + 1, {}};
  lease.begin([](void *context, int index) { static_cast<Start *>(context)->run(index); }, &start);
  start.run(0);
  lease.end();
}

// seconds of the fastest of some runs
template <class F> double fastest(F &&run) {
  double best = 1e30;
  for (int i = 0; i < 12; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// What one core of this machine can do, measured through the project's own registers: GFLOP/s and GB/s.
py::dict measure_limits() {
  py::dict peak, read;
  py::gil_scoped_release release;
  const size_t rounds = 1 << 18;
  double flops = 0;
  const double f32 = fastest([&] { flops = kernels().f32.peak(rounds); }), f32_gflops = flops / f32 * 1e-9;
  const double f64 = fastest([&] { flops = kernels().f64.peak(rounds); }), f64_gflops = flops / f64 * 1e-9;
  const std::pair<const char *, size_t> levels[] = {{"L1", caches().l1 / 2},
                                                    {"L2", caches().l2 / 2},
                                                    {"L3", std::min(caches().l3 / 2, caches().l2 * 8)},
                                                    {"DRAM", caches().l3 * 4}};
  std::vector<double> rates;
  for (const auto &[name, bytes] : levels) {
    (void)name;
    Buffer<float> memory = Buffer<float>::zeroed(bytes / sizeof(float));
    const size_t rounds_of = std::max<size_t>((size_t(1) << 24) / bytes, 1);
    volatile float sink = 0;
    const double t = fastest([&] { sink = kernels().f32.read(memory.get(), memory.size(), rounds_of); });
    rates.push_back(double(bytes) * double(rounds_of) / t * 1e-9);
  }
  py::gil_scoped_acquire acquire;
  peak["float32"] = f32_gflops;
  peak["float64"] = f64_gflops;
  for (size_t i = 0; i < rates.size(); ++i) read[levels[i].first] = rates[i];
  return py::dict(py::arg("fma_gflops") = peak, py::arg("read_gbs") = read,
                  py::arg("cache_bytes") = config()["cache_bytes"]);
}

// Operations a second, in 1e9, of one core that computes nothing but products of bytes in registers.
double measure_int8_peak() {
  const py::gil_scoped_release release;
  double operations = 0;
  const double seconds = fastest([&] { operations = kernels().int8.peak(1 << 18); });
  return operations / seconds * 1e-9;
}

// A loop of nothing but fma on so many threads at once, and how many operations they did: a call to be timed beside
// others, since two cores of a virtual machine are not always two.
double run_fma(bool is_double, int threads, size_t rounds) {
  const py::gil_scoped_release release;
  double flops = 0;
  on_threads(std::max(threads, 1), [&](int index, int n_threads) {
    const double own = is_double ? kernels().f64.peak(rounds) : kernels().f32.peak(rounds);
    if (index == 0) flops = own * n_threads;
  });
  return flops;
}

// Two threads hand a number to and fro; how often they did (none where there is but one). What a cache line takes from
// one core to another and back changes on a virtual machine with where its cores happen to run.
unsigned exchange_lines(unsigned rounds) {
  const py::gil_scoped_release release;
  struct alignas(64) Line {
    std::atomic<unsigned> number{0};
  } there, back;
  const auto await = [](const Line &line, unsigned number) {
    for (unsigned spins = 0; line.number.load(std::memory_order_acquire) != number; ++spins)
      spins < 2000 ? cpu_relax() : yield_thread();
  };
  unsigned done = 0;
  on_threads(2, [&](int index, int n_threads) {
    for (unsigned i = 1; n_threads == 2 && i <= rounds; ++i) {
      if (index == 1) await(there, i);
      (index ? back : there).number.store(i, std::memory_order_release);
      if (index == 0) await(back, done = i);
    }
  });
  return done;
}

template <class T> py::array elementwise(const py::array &a, void (*f)(T *, const T *, size_t)) {
  const py::array_t<T, py::array::c_style | py::array::forcecast> in(a);
  py::array out(py::dtype::of<T>(), std::vector<py::ssize_t>(in.shape(), in.shape() + in.ndim()));
  const FlushSubnormals mode;
  f(data<T>(out), data<T>(in), size_t(in.size()));
  return out;
}

// The plan of a call of these sizes, for the tests of the schedule.
py::tuple plan_of(const std::string &cell, size_t total, size_t steps, size_t rows, size_t input, size_t hidden,
                  size_t recurrent, size_t number, size_t gates, int threads, size_t l2, size_t layers,
                  size_t directions, bool packed, size_t panels, bool backward) {
  Problem p;
  p.cell = cell == "gru_before" ? Cell::gru_before : Cell::lstm;
  p.total = total;
  p.steps = steps;
  p.rows = rows;
  p.input = input;
  p.hidden = hidden;
  p.recurrent = recurrent;
  p.number = number;
  p.gates = gates;
  p.threads = threads;
  p.l2 = l2;
  p.layers = layers;
  p.directions = directions;
  p.packed = packed;
  p.one_product = !resets_before(p.cell);
  p.panels = panels;
  p.backward = backward;
  const Plan plan = schedule(p);
  const char *const split[] = {"rows", "units", "wavefront", "pipelined"};
  return py::make_tuple(plan.threads, split[int(plan.split)], plan.fuse_input, plan.in_pieces, plan.w_in_pieces,
                        plan.paced);
}

} // namespace

void register_machine(py::module_ &m) {
  m.def("config", &config);
  m.def("count_cpus", &count_cpus, py::arg("root"), py::arg("allowed"));
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads);
  m.def("measure_limits", &measure_limits);
  m.def("measure_int8_peak", &measure_int8_peak);
  m.def("shuffle_shares", &shuffle_shares, py::arg("seed")); // for tests
  m.def("run_fma", &run_fma, py::arg("is_double"), py::arg("threads"), py::arg("rounds"));
  m.def("exchange_lines", &exchange_lines, py::arg("rounds"));
  m.def("schedule", &plan_of, py::arg("cell"), py::arg("total"), py::arg("steps"), py::arg("rows"), py::arg("input"),
        py::arg("hidden"), py::arg("recurrent"), py::arg("number"), py::arg("gates"), py::arg("threads"), py::arg("l2"),
        py::arg("layers") = 1, py::arg("directions") = 1, py::arg("packed") = false, py::arg("panels") = 8,
        py::arg("backward") = false);
  m.def("tanh", [](const py::array &a) {
    return a.itemsize() == 8 ? elementwise<double>(a, kernels().f64.tanh) : elementwise<float>(a, kernels().f32.tanh);
  });
  m.def("sigmoid", [](const py::array &a) {
    return a.itemsize() == 8 ? elementwise<double>(a, kernels().f64.sigmoid)
                             : elementwise<float>(a, kernels().f32.sigmoid);
  });
}

} // namespace fastrnn
