// The loops of native.cc without MXNet's engine, to be compiled with the address sanitizer:
// forward and backward of odd shapes, each array of exactly its size, against plain sums in double.
#include "../gluon_bn/kernels/native.cc"

static void* allocate(void* kept, int size) {
  auto* memory = static_cast<std::vector<char>*>(kept);
  memory->assign(size, 0x7f);
  return memory->data();
}

template <typename T> struct Array {
  std::vector<T> values;
  std::vector<int64_t> shape;
  explicit Array(std::vector<int64_t> s) : shape(s) {
    size_t n = 1;
    for (int64_t d : s) n *= d;
    values.resize(n);
    values.shrink_to_fit();
  }
  void fill(unsigned seed, double offset) {
    for (T& v : values) {
      seed = seed * 1664525u + 1013904223u;
      v = static_cast<T>(offset + (seed >> 8) / 8388608. - 1);
    }
  }
  MXTensor tensor() {
    return MXTensor(values.data(), shape, sizeof(T) == 8 ? kFloat64 : kFloat32, 0, MXContext::CPU(0));
  }
};

static double worst = 0;
static void compare(const char* what, double found, double wanted, double scale) {
  const double error = std::fabs(found - wanted) / (scale > 1 ? scale : 1);
  if (!(error <= worst)) worst = error;
  if (!(error < 1e-4)) {
    std::printf("%s: %g, not %g\n", what, found, wanted);
    std::exit(1);
  }
}

template <typename T> void check(std::vector<int64_t> shape, int axis, int act, double offset) {
  long outer = 1, inner = 1, C = shape[axis];
  for (int i = 0; i < axis; ++i) outer *= shape[i];
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  const std::vector<int64_t> each{C};
  Array<T> X(shape), Y(shape), dY(shape), dX(shape), gamma(each), beta(each), mean(each), var(each);
  Array<T> statistics({4, C}), d_statistics({4, C}), dgamma(each), dbeta(each), d3(each), d4(each);
  X.fill(1, offset), dY.fill(2, 0), gamma.fill(3, 1.5), beta.fill(4, 0), mean.fill(5, 0);
  var.fill(6, 2);
  const char* names[] = {"none", "relu", "sigmoid"};
  Attributes attributes{{"options", std::string("mode=train axis=") + std::to_string(axis) +
                                        " eps=1e-05 momentum=0 activation=" + names[act]}};
  std::vector<char> kept;
  OpResource memory(allocate, &kept, allocate, &kept, nullptr, nullptr, nullptr, nullptr, nullptr);
  Tensors in{X.tensor(), gamma.tensor(), beta.tensor(), mean.tensor(), var.tensor()};
  Tensors out{Y.tensor(), statistics.tensor()};
  run_forward(attributes, &in, &out, memory);
  Tensors back{dY.tensor(), d_statistics.tensor()};
  back.insert(back.end(), in.begin(), in.end());
  back.insert(back.end(), out.begin(), out.end());
  Tensors gradients{dX.tensor(), dgamma.tensor(), dbeta.tensor(), d3.tensor(), d4.tensor()};
  run_backward(attributes, &back, &gradients, memory);

  const double n = static_cast<double>(outer) * inner;
  for (long c = 0; c < C; ++c) {
    double m = 0, v = 0, sum = 0, weighted = 0;
    auto at = [&](long o, long i) { return (o * C + c) * inner + i; };
    for (long o = 0; o < outer; ++o) for (long i = 0; i < inner; ++i) m += X.values[at(o, i)] / n;
    for (long o = 0; o < outer; ++o)
      for (long i = 0; i < inner; ++i) v += (X.values[at(o, i)] - m) * (X.values[at(o, i)] - m) / n;
    const double scale = 1 / std::sqrt(v + 1e-5), g = gamma.values[c];
    auto before = [&](long k, double* x_hat) {  // dY behind the activation; Y compared on the way
      *x_hat = (X.values[k] - m) * scale;
      const double z = *x_hat * g + beta.values[c], s = 1 / (1 + std::exp(-z));
      compare("Y", Y.values[k], act == RELU ? (z > 0 ? z : 0) : act == SIGMOID ? s : z, 1);
      const double dy = dY.values[k];
      return act == RELU ? (Y.values[k] > 0 ? dy : 0) : act == SIGMOID ? dy * s * (1 - s) : dy;
    };
    double x_hat;
    for (long o = 0; o < outer; ++o)
      for (long i = 0; i < inner; ++i) {
        const double d = before(at(o, i), &x_hat);
        sum += d, weighted += d * x_hat;
      }
    compare("dbeta", dbeta.values[c], sum, n);
    compare("dgamma", dgamma.values[c], weighted, n);
    compare("running mean", mean.values[c], m, std::fabs(m));
    compare("running variance", var.values[c], v, v);
    for (long o = 0; o < outer; ++o)
      for (long i = 0; i < inner; ++i) {
        const double d = before(at(o, i), &x_hat);
        compare("dX", dX.values[at(o, i)], g * scale * (d - sum / n - x_hat * weighted / n), scale);
      }
  }
}

int main() {
  const std::vector<std::vector<int64_t>> shapes{
      {1, 1}, {2, 3}, {67, 5}, {5, 700, 1}, {3, 2, 127}, {3, 2, 128}, {2, 3, 129}, {2, 3, 257},
      {3, 5, 19, 31}, {70, 3, 3, 3}, {33, 41, 7}, {2, 1, 1000}, {1, 513, 2}};
  for (const auto& shape : shapes)
    for (int axis : {0, 1, static_cast<int>(shape.size()) - 1})
      for (int act : {NONE, RELU, SIGMOID}) {
        check<float>(shape, axis, act, 0);
        check<double>(shape, axis, act, 1e4);
      }
  std::printf("largest relative error %g\n", worst);
}
