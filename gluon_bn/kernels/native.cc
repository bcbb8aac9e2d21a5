// Batch normalization as an operator of MXNet's own engine: the loops of the `fused` kernel, in C++.
//
// X is seen as (outer, channel, inner), whatever its rank: NCHW is (N, C, H*W), channels last is (N*H*W, C, 1).
// Two passes over memory forward, two backward; with d = x - k, where k is a number close to the channel's mean:
//
//   forward   1. sum d, sum d*d         ->  mean, var             2. y  = a*d + b
//   backward  1. sum dy, sum dy*d       ->  dbeta, dgamma         2. dx = a*dy + p*d + q
//
// Subtracting k first, and adding in double, is what makes an input at 10000 +- 1 as accurate as one at 0 +- 1.
// native.py compiles this file; mxnet/lib_api.h is MXNet's door for operators built outside of it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "mxnet/lib_api.h"
using namespace mxnet::ext;
using Attributes = std::unordered_map<std::string, std::string>;
using Shapes = std::vector<std::vector<unsigned int>>;

// The compiler makes one copy of a kernel for each kind of processor; the loader picks the best when the program starts.
#ifdef GLUON_BN_CLONES
#define KERNEL __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define KERNEL
#endif

// ---- activations: the layer may apply one as it writes y, and undo it from y in the backward pass --------------------
enum Activation { NONE, RELU, SIGMOID };

inline double exp_(double v) { return std::exp(v); }
inline float exp_(float v) {  // 2^n * e^r with |r| < 0.35: unlike the library's, a vector of them at once
  v = v < -87.f ? -87.f : v > 87.f ? 87.f : v;
  float n = v * 1.44269504f + 12582912.f;  // 1.5 * 2^23: rounds, and leaves the integer n in the lowest bits
  uint32_t bits;
  std::memcpy(&bits, &n, 4);
  float r = v - (n - 12582912.f) * 0.693145752f - (n - 12582912.f) * 1.42860677e-6f;
  float e = 1.f + r * (1.f + r * (.5f + r * (1.66666657e-1f + r * (4.16654459e-2f + r * (8.33345205e-3f + r * 1.39353915e-3f)))));
  uint32_t power = (bits + 127) << 23;
  float scale;
  std::memcpy(&scale, &power, 4);
  return e * scale;
}
template <int ACT, typename T> inline T activate(T z) {
  return ACT == RELU ? (z < 0 ? 0 : z) : ACT == SIGMOID ? 1 / (1 + exp_(-z)) : z;
}
template <int ACT, typename T> inline T unactivate(T dy, T y) {  // gradient before the activation
  return ACT == RELU ? (y > 0 ? dy : 0) : ACT == SIGMOID ? dy * y * (1 - y) : dy;
}

// ---- kernels: a tile is `rows` pieces of `width` numbers, `stride` apart ----------------------------------------------
// PER = 0: the piece belongs to one channel, k[0] (large inner). PER = 1: each column has its own, k[j] (small inner).
template <typename T, int PER>
KERNEL void moments(const T* x, long rows, long stride, long width, const double* k, double* s1, double* s2) {
  for (long r = 0; r < rows; ++r, x += stride) {
    if (PER) {
#pragma omp simd
      for (long j = 0; j < width; ++j) { double d = x[j] - k[j]; s1[j] += d; s2[j] += d * d; }
    } else {
      double a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
      for (long j = 0; j < width; ++j) { double d = x[j] - k[0]; a += d; b += d * d; }
      *s1 += a; *s2 += b;
    }
  }
}
template <typename T, int PER, int ACT>
KERNEL void affine(const T* x, T* y, long rows, long stride, long width, const T* k, const T* a, const T* b) {
  for (long r = 0; r < rows; ++r, x += stride, y += stride) {
#pragma omp simd
    for (long j = 0; j < width; ++j) y[j] = activate<ACT>((x[j] - k[PER * j]) * a[PER * j] + b[PER * j]);
  }
}
template <typename T, int PER, int ACT>
KERNEL void products(const T* dy, const T* x, const T* y, long rows, long stride, long width, const T* k, double* s1, double* s2) {
  for (long r = 0; r < rows; ++r, x += stride, y += stride, dy += stride) {
    if (PER) {
#pragma omp simd
      for (long j = 0; j < width; ++j) { double g = unactivate<ACT>(dy[j], y[j]); s1[j] += g; s2[j] += g * (x[j] - k[j]); }
    } else {
      double a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
      for (long j = 0; j < width; ++j) { double g = unactivate<ACT>(dy[j], y[j]); a += g; b += g * (x[j] - k[0]); }
      *s1 += a; *s2 += b;
    }
  }
}
template <typename T, int PER, int ACT>
KERNEL void gradient(const T* dy, const T* x, const T* y, T* dx, long rows, long stride, long width,
                     const T* k, const T* a, const T* p, const T* q) {
  for (long r = 0; r < rows; ++r, x += stride, y += stride, dy += stride, dx += stride) {
#pragma omp simd
    for (long j = 0; j < width; ++j)
      dx[j] = a[PER * j] * unactivate<ACT>(dy[j], y[j]) + p[PER * j] * (x[j] - k[PER * j]) + q[PER * j];
  }
}

// ---- tiles: how the array is cut, the same way for any number of threads, so the numbers are the same too -------------
const long COLUMNS = 512, SMALL_INNER = 128;

struct Tile {
  long group, start, rows, channel, channels, width, copies;  // start: of its first number in the array
  template <typename A, typename B> void spread(const A* from, long step, B* to) const {  // one number a channel
    for (long c = channel; c < channel + channels; ++c)                                   // -> one a coefficient
      for (long i = 0; i < copies; ++i) *to++ = from[c * step];
  }
  void clear(double* a, double* b) const {
    for (long i = 0; i < channels * copies; ++i) a[i] = b[i] = 0;
  }
  void gather(const double* from, double* sums) const {  // one sum a coefficient -> one a channel
    for (long c = channel; c < channel + channels; ++c) {
      sums[c] = 0;
      for (long i = 0; i < copies; ++i) sums[c] += *from++;
    }
  }
};
struct View {
  long outer = 1, C, inner = 1, examples, groups, blocks, per_block;  // a group: neighbouring rows summed together
  bool small;
  View(const std::vector<int64_t>& shape, int axis, const MXTensor& gamma) {
    if (axis < 0) axis += shape.size();
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
    C = shape[axis];
    examples = gamma.shape.size() == 2 ? gamma.shape[0] : 1;  // conditional: a gamma and a beta for each example
    small = inner < SMALL_INNER;
    groups = !small ? outer : examples > 1 ? examples : std::max(1L, std::min(64L, outer / 16));
    per_block = small ? std::max(1L, COLUMNS / inner) : 1;  // channels in a tile
    blocks = (C + per_block - 1) / per_block;
  }
  long example(long group) const { return group * examples / groups; }
  Tile tile(long i) const {
    Tile t;
    t.group = i / blocks;
    const long row = t.group * outer / groups;
    t.rows = (t.group + 1) * outer / groups - row;
    t.channel = i % blocks * per_block;
    t.start = (row * C + t.channel) * inner;
    t.channels = std::min(per_block, C - t.channel);
    t.width = t.channels * inner;
    t.copies = small ? inner : 1;
    return t;
  }
  template <typename F> void each(bool backwards, F body) const {  // backwards: begin with what is still in the cache
    const long n = groups * blocks;
#pragma omp parallel if (outer * C * inner > 32768)
    {
      long me = 0, of = 1;
#ifdef _OPENMP
      me = omp_get_thread_num(); of = omp_get_num_threads();
#endif
      const long first = n * me / of, last = n * (me + 1) / of;
      for (long i = first; i < last; ++i) body(tile(backwards ? first + last - 1 - i : i));
    }
  }
};

// ---- the layer --------------------------------------------------------------------------------------------------------
const double TRAINING = std::ldexp(1., 66);

struct Options {  // one attribute holds them all, "train 1 1e-05 0.9 0 0": MXNet copies every attribute many times a call
  char mode[16] = "";
  int axis = 1, unbiased = 0, act = NONE;
  double eps = 0, momentum = 0;
  explicit Options(const Attributes& a) {
    std::sscanf(a.at("options").c_str(), "%15s %d %lf %lf %d %d", mode, &axis, &eps, &momentum, &unbiased, &act);
  }
  bool is(const char* name) const { return !std::strcmp(mode, name); }
  // mode: "train", "predict", "global" (a layer that never trains), or "graph": input 5 tells, its last number is 2^66
  bool training(MXTensor* in) const {
    if (!is("graph")) return is("train");
    const int64_t last = in[5].size() - 1;
    return TRAINING == (in[5].dtype == kFloat64 ? in[5].data<double>()[last] : in[5].data<float>()[last]);
  }
};
#define BY_ACTIVATION(f, per) {f<T, per, NONE>, f<T, per, RELU>, f<T, per, SIGMOID>}

// inputs: X, gamma, beta, running mean, running variance[, flag]; outputs: Y, and mean, variance, rest, mode as (4, C).
// The rest is the part of the mean that T cannot hold; the mode is there for the next layer of a graph.
template <typename T> MXReturnValue forward(const Options& o, MXTensor* in, MXTensor* out, const OpResource& resource) {
  const View v(out[0].shape, o.axis, in[1]);
  const T *x = in[0].data<T>(), *gamma = in[1].data<T>(), *beta = in[2].data<T>();
  T *y = out[0].data<T>(), *mean = out[1].data<T>(), *var = mean + v.C, *rest = var + v.C;
  T *running_mean = in[3].data<T>(), *running_var = in[4].data<T>();
  const bool training = o.training(in);
  for (long c = 0; c < v.C; ++c) rest[v.C + c] = static_cast<T>(training ? TRAINING : 0);
  double* s1 = static_cast<double*>(resource.alloc_cpu((v.groups + v.examples) * v.C * 2 * sizeof(double)));
  double* s2 = s1 + v.groups * v.C;
  T *a = reinterpret_cast<T*>(s2 + v.groups * v.C), *b = a + v.examples * v.C;
  if (training) {
    v.each(false, [&](const Tile& t) {
      double k[COLUMNS], sum[COLUMNS], squares[COLUMNS];
      t.spread(x, v.inner, k);  // the channel's first number
      t.clear(sum, squares);
      (v.small ? moments<T, 1> : moments<T, 0>)(x + t.start, t.rows, v.C * v.inner, t.width, k, sum, squares);
      t.gather(sum, s1 + t.group * v.C);
      t.gather(squares, s2 + t.group * v.C);
    });
    const double n = static_cast<double>(v.outer) * v.inner;
    for (long g = 1; g < v.groups; ++g)
      for (long c = 0; c < v.C; ++c) { s1[c] += s1[g * v.C + c]; s2[c] += s2[g * v.C + c]; }
    for (long c = 0; c < v.C; ++c) {
      const double shift = s1[c] / n, m = x[c * v.inner] + shift, variance = std::max(0., s2[c] / n - shift * shift);
      mean[c] = static_cast<T>(m);
      rest[c] = static_cast<T>(m - mean[c]);
      var[c] = static_cast<T>(variance);
      // A layer of a graph keeps its statistics where the batch's are NaN or infinite (BatchNorm's skip_nonfinite).
      if (o.is("graph") && !(std::isfinite(mean[c]) && std::isfinite(var[c]))) continue;
      const double w = o.momentum, moved = o.unbiased ? variance * n / std::max(1., n - 1) : variance;
      running_mean[c] = static_cast<T>(w == 0 ? m : w * running_mean[c] + (1 - w) * m);
      running_var[c] = static_cast<T>(w == 0 ? moved : w * running_var[c] + (1 - w) * moved);
    }
  } else {
    std::memcpy(mean, running_mean, v.C * sizeof(T));
    std::memcpy(var, running_var, v.C * sizeof(T));
    std::memset(rest, 0, v.C * sizeof(T));
  }
  for (long i = 0; i < v.examples * v.C; ++i) {
    const long c = i % v.C;
    const double scale = gamma[i] / std::sqrt(var[c] + o.eps);
    a[i] = static_cast<T>(scale);
    b[i] = static_cast<T>(beta[i] - rest[c] * scale);
  }
  static decltype(&affine<T, 0, NONE>) const kernel[2][3] = {BY_ACTIVATION(affine, 0), BY_ACTIVATION(affine, 1)};
  v.each(training, [&](const Tile& t) {
    T k[COLUMNS], at[COLUMNS], bt[COLUMNS];
    t.spread(mean, 1, k);
    t.spread(a + v.example(t.group) * v.C, 1, at);
    t.spread(b + v.example(t.group) * v.C, 1, bt);
    kernel[v.small][o.act](x + t.start, y + t.start, t.rows, v.C * v.inner, t.width, k, at, bt);
  });
  return MX_SUCCESS;
}

// inputs: dY, d(statistics) (ignored: they are constants), then the inputs and the outputs of forward.
template <typename T> MXReturnValue backward(const Options& o, MXTensor* in, MXTensor* out, size_t inputs, const OpResource& resource) {
  MXTensor *fwd_in = in + 2, *fwd_out = fwd_in + inputs;
  const View v(out[0].shape, o.axis, fwd_in[1]);  // not the shape of an input: MXNet may pass that one from freed memory
  const T *dy = in[0].data<T>(), *x = fwd_in[0].data<T>(), *gamma = fwd_in[1].data<T>(), *y = fwd_out[0].data<T>();
  const T *mean = fwd_out[1].data<T>(), *var = mean + v.C, *rest = var + v.C;
  T *dx = out[0].data<T>(), *dgamma = out[1].data<T>(), *dbeta = out[2].data<T>();
  for (size_t i = 3; i < inputs; ++i) std::memset(out[i].data_ptr, 0, out[i].size() * (out[i].dtype == kFloat64 ? 8 : 4));

  double* s1 = static_cast<double*>(resource.alloc_cpu((2 * v.groups + v.examples + 2) * v.C * sizeof(double)));
  double* s2 = s1 + v.groups * v.C;
  T *p = reinterpret_cast<T*>(s2 + v.groups * v.C), *q = p + v.C, *a = q + v.C;
  static decltype(&products<T, 0, NONE>) const kernel1[2][3] = {BY_ACTIVATION(products, 0), BY_ACTIVATION(products, 1)};
  v.each(false, [&](const Tile& t) {
    T k[COLUMNS]; double sum[COLUMNS], weighted[COLUMNS];
    t.spread(mean, 1, k);
    t.clear(sum, weighted);
    kernel1[v.small][o.act](dy + t.start, x + t.start, y + t.start, t.rows, v.C * v.inner, t.width, k, sum, weighted);
    t.gather(sum, s1 + t.group * v.C);
    t.gather(weighted, s2 + t.group * v.C);
  });
  const long share = v.groups / v.examples;  // groups in an example; all of them, if gamma is one row
  for (long e = 0; e < v.examples; ++e)
    for (long i = 1; i < share; ++i)
      for (long c = 0, to = e * share * v.C; c < v.C; ++c) { s1[to + c] += s1[to + i * v.C + c]; s2[to + c] += s2[to + i * v.C + c]; }
  const double n = static_cast<double>(v.outer) * v.inner;
  const bool training = o.training(fwd_in);
  for (long c = 0; c < v.C; ++c) {
    const double inv = 1 / std::sqrt(var[c] + o.eps);
    double through_mean = 0, through_var = 0;  // parts of the gradient, in training only: given statistics do not move
    for (long e = 0; e < v.examples; ++e) {
      const double db = s1[e * share * v.C + c], dg = (s2[e * share * v.C + c] - rest[c] * db) * inv, g = gamma[e * v.C + c];
      dbeta[e * v.C + c] = static_cast<T>(db);
      dgamma[e * v.C + c] = static_cast<T>(dg);
      a[e * v.C + c] = static_cast<T>(g * inv);
      if (training) { through_mean -= g * db / n * inv; through_var -= g * dg / n * inv * inv; }
    }
    p[c] = static_cast<T>(through_var);
    q[c] = static_cast<T>(through_mean - through_var * rest[c]);
  }
  static decltype(&gradient<T, 0, NONE>) const kernel2[2][3] = {BY_ACTIVATION(gradient, 0), BY_ACTIVATION(gradient, 1)};
  v.each(true, [&](const Tile& t) {
    T k[COLUMNS], at[COLUMNS], pt[COLUMNS], qt[COLUMNS];
    t.spread(mean, 1, k);
    t.spread(a + v.example(t.group) * v.C, 1, at);
    t.spread(p, 1, pt);
    t.spread(q, 1, qt);
    kernel2[v.small][o.act](dy + t.start, x + t.start, y + t.start, dx + t.start, t.rows, v.C * v.inner, t.width, k, at, pt, qt);
  });
  return MX_SUCCESS;
}

// ---- what MXNet asks about the operator -------------------------------------------------------------------------------
MXReturnValue parse(const Attributes& a, int* inputs, int* outputs) {
  *inputs = a.count("options") && Options(a).is("graph") ? 6 : 5;
  *outputs = 2;
  return MX_SUCCESS;
}
MXReturnValue types(const Attributes&, std::vector<int>* in, std::vector<int>* out) {
  for (size_t i = 1; i < 5; ++i) in->at(i) = in->at(0);
  out->at(0) = out->at(1) = in->at(0);
  return MX_SUCCESS;
}
MXReturnValue shapes(const Attributes& a, Shapes* in, Shapes* out) {  // fills in the parameters' shapes from X's
  const std::vector<unsigned int>& x = in->at(0);
  int axis = Options(a).axis;
  if (axis < 0) axis += x.size();
  if (x.size() < 2 || axis < 0 || axis >= static_cast<int>(x.size())) {
    MX_ERROR_MSG << "gluon_bn: X must have at least 2 dimensions and its shape must be known, and axis must be one of them";
    return MX_FAIL;
  }
  const bool conditional = in->at(1).size() == 2 && axis > 0;
  in->at(1) = in->at(2) = conditional ? std::vector<unsigned int>{x[0], x[axis]} : std::vector<unsigned int>{x[axis]};
  in->at(3) = in->at(4) = {x[axis]};
  if (in->size() > 5 && in->at(5).size() < 2) in->at(5) = {x[axis]};  // else the statistics of the layer before
  out->at(0) = x;
  out->at(1) = {4, x[axis]};
  return MX_SUCCESS;
}
MXReturnValue mutates(const Attributes& a, std::vector<int>* indices) {
  if (!Options(a).is("predict")) *indices = {3, 4};
  return MX_SUCCESS;
}
MXReturnValue run_forward(const Attributes& a, std::vector<MXTensor>* in, std::vector<MXTensor>* out, const OpResource& r) {
  return out->at(0).dtype == kFloat64 ? forward<double>(Options(a), in->data(), out->data(), r)
                                      : forward<float>(Options(a), in->data(), out->data(), r);
}
MXReturnValue run_backward(const Attributes& a, std::vector<MXTensor>* in, std::vector<MXTensor>* out, const OpResource& r) {
  return out->at(0).dtype == kFloat64 ? backward<double>(Options(a), in->data(), out->data(), out->size(), r)
                                      : backward<float>(Options(a), in->data(), out->data(), out->size(), r);
}
REGISTER_OP(gluon_bn_native).setParseAttrs(parse).setInferType(types).setInferShape(shapes).setMutateInputs(mutates)
    .setForward(run_forward, "cpu").setBackward(run_backward, "cpu");
MXReturnValue initialize(int version) { return version >= 10900 && version < 20000 ? MX_SUCCESS : MX_FAIL; }
