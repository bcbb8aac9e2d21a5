// The loops of the native kernel alone, without MXNet's engine: milliseconds of the forward and the
// backward pass in training and of a prediction, each the fastest of many, beside a copy of X.
//
//   MX=$(python -c "import mxnet, os; print(os.path.dirname(mxnet.__file__))")
//   g++ -std=c++17 -O3 -fno-trapping-math -fopenmp -w -DGLUON_BN_CLONES -I$MX/include \
//       benchmarks/native_loops.cc $MX/src/lib_api.cc -o /tmp/native_loops
//   OMP_NUM_THREADS=1 /tmp/native_loops
//
// GLUON_BN_CACHE_BYTES=0 writes all results past the cache, a large number none. Another version of
// native.cc: -DSOURCE='"/path/to/native.cc"'.
#ifndef SOURCE
#define SOURCE "../gluon_bn/kernels/native.cc"
#endif
#include SOURCE
#include <chrono>

static void* allocate(void* kept, int size) {
  auto* memory = static_cast<std::vector<char>*>(kept);
  if (memory->size() < static_cast<size_t>(size)) memory->resize(size);
  return memory->data();
}
static double now() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch()).count();
}
struct Array {
  std::vector<int64_t> shape;
  float* values;
  explicit Array(std::vector<int64_t> s) : shape(s) {
    long n = 1;
    for (int64_t d : s) n *= d;
    values = static_cast<float*>(std::aligned_alloc(64, (n * 4 + 63) / 64 * 64));
    for (long i = 0; i < n; ++i) values[i] = ((i * 2654435761u) >> 8 & 65535) / 65536.f;
  }
  MXTensor tensor() { return MXTensor(values, shape, kFloat32, 0, MXContext::CPU(0)); }
};

int main() {
  const std::vector<std::vector<int64_t>> shapes{
      {256, 120}, {256, 6, 24, 24}, {256, 16, 8, 8}, {32, 64, 24, 24}, {64, 256, 12, 12},
      {128, 512, 3, 3}, {128, 64, 24, 24}};
  std::printf("%-20s %9s %9s %9s %9s  %s\n", "shape", "forward", "backward", "predict", "copy",
              "training / 2.5 copies");
  for (const auto& shape : shapes) {
    const std::vector<int64_t> each{shape[1]}, four{4, shape[1]};
    long n = 1;
    for (int64_t d : shape) n *= d;
    Array X(shape), Y(shape), dY(shape), dX(shape), gamma(each), beta(each), mean(each), var(each);
    Array statistics(four), d_statistics(four), dgamma(each), dbeta(each), d3(each), d4(each);
    std::vector<char> kept;
    OpResource memory(allocate, &kept, allocate, &kept, nullptr, nullptr, nullptr, nullptr, nullptr);
    Tensors in{X.tensor(), gamma.tensor(), beta.tensor(), mean.tensor(), var.tensor()};
    Tensors out{Y.tensor(), statistics.tensor()};
    Tensors back{dY.tensor(), d_statistics.tensor()};
    back.insert(back.end(), in.begin(), in.end());
    back.insert(back.end(), out.begin(), out.end());
    Tensors gradients{dX.tensor(), dgamma.tensor(), dbeta.tensor(), d3.tensor(), d4.tensor()};
    const Options train("mode=train axis=1 eps=1e-05 momentum=0.9 activation=none");
    const Options predict("mode=predict axis=1 eps=1e-05 activation=none");
    double fastest[4] = {1e9, 1e9, 1e9, 1e9};
    for (long i = 0, rounds = std::max(30L, std::min(2000L, 200000000 / n)); i < rounds; ++i) {
      const auto timed = [&](int which, auto step) {
        const double start = now();
        step();
        fastest[which] = std::min(fastest[which], now() - start);
      };
      timed(0, [&] { forward<float>(train, in.data(), out.data(), memory); });
      timed(1, [&] { backward<float>(train, back.data(), gradients.data(), 5, memory); });
      timed(2, [&] { forward<float>(predict, in.data(), out.data(), memory); });
      timed(3, [&] { std::memcpy(Y.values, X.values, n * 4); });
    }
    std::string name = "(";
    for (int64_t d : shape) name += (name.size() > 1 ? ", " : "") + std::to_string(d);
    name += ")";
    std::printf("%-20s %9.3f %9.3f %9.3f %9.3f  %.2f\n", name.c_str(), fastest[0], fastest[1],
                fastest[2], fastest[3], (fastest[0] + fastest[1]) / 2.5 / fastest[3]);
  }
}
