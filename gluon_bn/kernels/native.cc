// Batch normalization as an operator of MXNet's own engine: the loops of the `fused` kernel in C++.
//
// X is seen as (outer, channel, inner), whatever its rank: NCHW is (N, C, H*W), channels last is
// (N*H*W, C, 1). Two passes over memory forward, two backward, with d = x - k, where k is a number
// near the channel's mean:
//
//   forward   1. sum d, sum d*d      ->  mean, var           2. y  = a*d + b
//   backward  1. sum dy, sum dy*d    ->  dbeta, dgamma       2. dx = a*dy + p*d + q
//
// Subtracting k first, and adding short blocks up in double, makes an input at 10000 +- 1 as accurate
// as one at 0 +- 1. native.py compiles this file; mxnet/lib_api.h is MXNet's door for operators from outside.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <unistd.h>
#include "mxnet/lib_api.h"
using namespace mxnet::ext;
using Attributes = std::unordered_map<std::string, std::string>;
using Shape = std::vector<unsigned int>;
using Tensors = std::vector<MXTensor>;

// One copy of a kernel for each kind of processor; the loader picks the best at the start.
#ifdef GLUON_BN_CLONES
#define KERNEL __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define KERNEL
#endif
#define INLINE inline __attribute__((always_inline))  // into each of these copies

// ---- activations: the layer may apply one as it writes y, and undo it from y on the way back ----
enum Activation { NONE, RELU, SIGMOID };

inline double exp_(double v) { return std::exp(v); }
inline float exp_(float v) {  // 2^n * e^r with |r| < 0.35: unlike the library's, a vector at once
  v = v < -87.f ? -87.f : v > 87.f ? 87.f : v;
  float n = v * 1.44269504f + 12582912.f;  // 1.5 * 2^23 rounds, and leaves n in the lowest bits
  uint32_t bits;
  std::memcpy(&bits, &n, 4);
  n -= 12582912.f;
  float r = v - n * 0.693145752f - n * 1.42860677e-6f;  // log(2) in two parts
  float e = 4.16654459e-2f + r * (8.33345205e-3f + r * 1.39353915e-3f);
  e = 1.f + r * (1.f + r * (.5f + r * (1.66666657e-1f + r * e)));
  bits = (bits + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return e * power;
}
template <int ACT, typename T> inline T activate(T z) {
  return ACT == RELU ? (z < 0 ? 0 : z) : ACT == SIGMOID ? 1 / (1 + exp_(-z)) : z;
}
template <int ACT, typename T> inline T unactivate(T dy, T y) {  // gradient before the activation
  return ACT == RELU ? (y > 0 ? dy : 0) : ACT == SIGMOID ? dy * y * (1 - y) : dy;
}

// ---- tiles: how X is cut, the same way for any number of threads, so the bits are the same too --
const long COLUMNS = 512, SMALL_INNER = 128;

// `rows` pieces of `width` neighbouring numbers, `stride` apart, the first at `start`. Where inner
// is large a piece is one channel's; where it is small, several channels' of `copies` numbers each.
struct Tile { long group, example, start, rows, stride, width, channel, channels, copies; };

template <typename T> struct Columns {  // one number a channel -> one a column
  T at[COLUMNS];
  template <typename F> Columns(const Tile& t, const F* from) {
    T* to = at;
    for (long c = t.channel; c < t.channel + t.channels; ++c)
      for (long i = 0; i < t.copies; ++i) *to++ = from[c];
  }
  operator const T*() const { return at; }
};

// ---- kernels ------------------------------------------------------------------------------------
// PER = 0: k[0] is for the whole piece (large inner). PER = 1: each column j has its own, k[j].
// P is the type in which a few hundred numbers are added up before double takes over. In float that
// is several times faster, and loses nothing that Y could show, for k is near the mean.
const long BLOCK = 256, ROWS = 4;

// values(i, j) hands out the two numbers of row i and column j that are added to s1 and s2.
template <typename P, int PER, typename F>
INLINE void add_up(const Tile& t, double* s1, double* s2, F values) {
  if (!PER) {
    for (long r = 0; r < t.rows; ++r)
      for (long from = 0; from < t.width; from += BLOCK) {
        const long to = std::min(t.width, from + BLOCK);
        P a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
        for (long j = from; j < to; ++j) {
          P u, v;
          values(r, j, &u, &v);
          a += u, b += v;
        }
        *s1 += a, *s2 += b;
      }
    return;
  }
  const long n = t.width;
  for (long r = 0; r < t.rows; r += 4 * ROWS) {
    P a[COLUMNS], b[COLUMNS];
    std::fill_n(a, n, P(0));
    std::fill_n(b, n, P(0));
    const long last = std::min(t.rows, r + 4 * ROWS);
    long i = r;
    for (; i + ROWS <= last; i += ROWS)
#pragma omp simd
      for (long j = 0; j < n; ++j) {
        P u0, u1, u2, u3, v0, v1, v2, v3;
        values(i, j, &u0, &v0);
        values(i + 1, j, &u1, &v1);
        values(i + 2, j, &u2, &v2);
        values(i + 3, j, &u3, &v3);
        a[j] += (u0 + u1) + (u2 + u3);
        b[j] += (v0 + v1) + (v2 + v3);
      }
    for (; i < last; ++i)
#pragma omp simd
      for (long j = 0; j < n; ++j) {
        P u, v;
        values(i, j, &u, &v);
        a[j] += u, b[j] += v;
      }
    for (long j = 0; j < n; ++j) s1[j] += a[j], s2[j] += b[j];
  }
}
template <typename T, typename P, int PER>
KERNEL void moments(const Tile& t, const T* x, const T* k, double* s1, double* s2) {
  x += t.start;
  const long stride = t.stride;
  add_up<P, PER>(t, s1, s2, [=](long i, long j, P* u, P* v) __attribute__((always_inline)) {
    const P d = static_cast<P>(x[i * stride + j]) - k[PER * j];
    *u = d, *v = d * d;
  });
}
template <typename T, typename P, int PER, int ACT>
KERNEL void products(const Tile& t, const T* dy, const T* x, const T* y, const T* k, double* s1,
                     double* s2) {
  x += t.start, y += t.start, dy += t.start;
  const long stride = t.stride;
  add_up<P, PER>(t, s1, s2, [=](long i, long j, P* u, P* v) __attribute__((always_inline)) {
    const long at = i * stride + j;
    const P g = unactivate<ACT>(dy[at], y[at]);
    *u = g, *v = g * (static_cast<P>(x[at]) - k[PER * j]);
  });
}

// Past the cache: what is written so is not read first, as a line of the cache would be. For results
// that are too large to be found there by whoever reads them next.
template <typename T> INLINE void stream(T* to, const T* from, long n) {
#ifdef __SSE2__
  const long words = sizeof(T) / 4;
  int* out = reinterpret_cast<int*>(to);
  const int* in = reinterpret_cast<const int*>(from);
  long i = 0, last = n * words;
  for (; i < last && reinterpret_cast<uintptr_t>(out + i) % 16; ++i) _mm_stream_si32(out + i, in[i]);
  for (; i + 4 <= last; i += 4)
    _mm_stream_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
  for (; i < last; ++i) _mm_stream_si32(out + i, in[i]);
#else
  std::copy_n(from, n, to);
#endif
}
// value(i, j) is written to row i and column j.
template <typename T, typename F>
INLINE void write(const Tile& t, T* y, bool past_cache, F value) {
  y += t.start;
  if (past_cache) {
    T block[BLOCK];
    for (long r = 0; r < t.rows; ++r)
      for (long from = 0; from < t.width; from += BLOCK) {
        const long n = std::min(t.width - from, BLOCK);
#pragma omp simd
        for (long j = 0; j < n; ++j) block[j] = value(r, from + j);
        stream(y + r * t.stride + from, block, n);
      }
    return;
  }
  const long n = t.width, stride = t.stride;
  for (long r = 0; r < t.rows; ++r) {
    T* row = y + r * stride;
#pragma omp simd
    for (long j = 0; j < n; ++j) row[j] = value(r, j);
  }
}
template <typename T, int PER, int ACT>
KERNEL void affine(const Tile& t, bool past_cache, const T* x, T* y, const T* k, const T* a,
                   const T* b) {
  if (!past_cache) {  // the loop of `write`, in the form that GCC 12 makes a twentieth faster
    x += t.start, y += t.start;
    for (long r = 0, width = t.width; r < t.rows; ++r, x += t.stride, y += t.stride) {
#pragma omp simd
      for (long j = 0; j < width; ++j)
        y[j] = activate<ACT>((x[j] - k[PER * j]) * a[PER * j] + b[PER * j]);
    }
    return;
  }
  x += t.start;
  const long stride = t.stride;
  write(t, y, past_cache, [=](long i, long j) __attribute__((always_inline)) {
    return activate<ACT>((x[i * stride + j] - k[PER * j]) * a[PER * j] + b[PER * j]);
  });
}
template <typename T, int PER, int ACT>
KERNEL void gradient(const Tile& t, bool past_cache, const T* dy, const T* x, const T* y, T* dx,
                     const T* k, const T* a, const T* p, const T* q) {
  x += t.start, y += t.start, dy += t.start;
  const long stride = t.stride;
  write(t, dx, past_cache, [=](long i, long j) __attribute__((always_inline)) {
    const long at = i * stride + j;
    return a[PER * j] * unactivate<ACT>(dy[at], y[at]) + p[PER * j] * (x[at] - k[PER * j])
           + q[PER * j];
  });
}
// The instance of kernel f for this view and activation.
#define INSTANCE(f, ...) \
  (o.act == RELU ? f<__VA_ARGS__, RELU> : o.act == SIGMOID ? f<__VA_ARGS__, SIGMOID> \
                                                           : f<__VA_ARGS__, NONE>)

// ---- the array as a whole -----------------------------------------------------------------------
struct View {
  long outer = 1, C, inner = 1;
  long examples;  // rows of gamma: 1, or, where the layer is conditional, one for each example
  long groups, blocks, per_block;  // a group: rows summed together; a block: channels in a tile
  bool small;

  View(const std::vector<int64_t>& shape, int axis, const MXTensor& gamma) {
    if (axis < 0) axis += shape.size();
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
    C = shape[axis];
    examples = gamma.size() / C;
    small = inner < SMALL_INNER;
    const long pieces = std::max(1L, std::min(64L, outer / 16));
    groups = !small ? outer : examples > 1 ? examples : pieces;
    per_block = small ? std::max(1L, COLUMNS / inner) : 1;
    blocks = (C + per_block - 1) / per_block;
  }
  Tile tile(long group, long block) const {
    Tile t;
    t.group = group;
    t.example = group * examples / groups;
    t.channel = block * per_block;
    t.channels = std::min(per_block, C - t.channel);
    t.copies = small ? inner : 1;
    const long row = group * outer / groups;
    t.rows = (group + 1) * outer / groups - row;
    t.start = (row * C + t.channel) * inner;
    t.stride = C * inner;
    t.width = t.channels * inner;
    return t;
  }
  // body(tile), by all threads; backwards: begin with the tiles that may still be in the cache. (Not
  // where results go past it: what is read then comes from memory, twice as fast from the front.)
  template <typename F> void each(bool backwards, F body) const {
    const long n = groups * blocks;
#pragma omp parallel if (outer * C * inner > 32768)
    {
      long me = 0, of = 1;
#ifdef _OPENMP
      me = omp_get_thread_num();
      of = omp_get_num_threads();
#endif
      const long first = n * me / of, last = n * (me + 1) / of;
      for (long i = backwards ? last : first; backwards ? i > first : i < last;) {
        const long group = (backwards ? i - 1 : i) / blocks;  // its tiles, without dividing anew
        Tile t = tile(group, (backwards ? i - 1 : i) % blocks);
        const long end = backwards ? std::max(first, group * blocks)
                                   : std::min(last, (group + 1) * blocks);
        while (i != end) {
          body(t);
          i += backwards ? -1 : 1;
          t.channel += backwards ? -per_block : per_block;
          t.start += (backwards ? -per_block : per_block) * inner;
          t.channels = std::min(per_block, C - t.channel);
          t.width = t.channels * inner;
        }
      }
#ifdef __SSE2__
      _mm_sfence();
#endif
    }
  }
  // body(tile, P(), a, b) adds to two sums a column; out come two a channel, for each of `rows` rows
  // of examples: s1 and s2, (rows, C), in memory for (groups, C). Blocks are added up in T, and if
  // that was too small for the squares, once more in double.
  template <typename T, typename F> void sums(double* s1, double* s2, long rows, F body) const {
    sums_in<T>(s1, s2, rows, body);
    for (long i = 0; i < rows * C; ++i)
      if (sizeof(T) < 8 && !std::isfinite(s2[i])) return sums_in<double>(s1, s2, rows, body);
  }
  template <typename P, typename F> void sums_in(double* s1, double* s2, long rows, F body) const {
    each(false, [&](const Tile& t) {
      double a[COLUMNS], b[COLUMNS];
      std::fill_n(a, t.channels * t.copies, 0.);
      std::fill_n(b, t.channels * t.copies, 0.);
      body(t, P(), a, b);
      for (long c = 0; c < t.channels; ++c) {
        const long to = t.group * C + t.channel + c, from = c * t.copies;
        s1[to] = std::accumulate(a + from, a + from + t.copies, 0.);
        s2[to] = std::accumulate(b + from, b + from + t.copies, 0.);
      }
    });
    for (double* s : {s1, s2})
      for (long row = 0, from = 0; row < rows; ++row)
        for (long i = 0; i < groups / rows; ++i)
          for (long c = row * C; c < (row + 1) * C; ++c) s[c] = (i ? s[c] : 0) + s[from++];
  }
  // A number near the mean of each channel: the mean of its first few values. (Of one alone, a value
  // far from all others, the squares of the distances from it would lose what they are to show.)
  template <typename T> void first_mean(const T* x, T* near) const {
    const long width = std::min(inner, BLOCK), rows = std::min(outer, (64 + width - 1) / width);
    for (long c = 0; c < C; ++c) {
      double sum = 0;
      for (long r = 0; r < rows; ++r)
        for (long i = 0; i < width; ++i) sum += x[(r * C + c) * inner + i];
      const T mean = static_cast<T>(sum / (rows * width));
      near[c] = std::isfinite(mean) ? mean : 0;
    }
  }
  // Whether Y is too large to be found in a cache by whoever reads it next. The last one is shared
  // with other programs, and its size no measure: eight times the second one is what we count on.
  template <typename T> bool past_cache() const {
    static const long counted_on = [] {
      const char* tested = std::getenv("GLUON_BN_CACHE_BYTES");
      if (tested) return std::atol(tested);
#ifdef _SC_LEVEL2_CACHE_SIZE
      const long second = sysconf(_SC_LEVEL2_CACHE_SIZE);
      if (second > 0) return 8 * second;
#endif
      return 8L << 20;
    }();
    return outer * C * inner * static_cast<long>(sizeof(T)) > counted_on;
  }
};

// ---- the layer ----------------------------------------------------------------------------------
// NaN for an infinite variance: divided by it, finite values would pass for beta without a word.
inline double inverse_root(double var, double eps) {
  return std::isinf(var) ? NAN : 1 / std::sqrt(var + eps);
}
const double TRAINING = std::ldexp(1., 66);

// All in one attribute, "mode=train axis=1 eps=1e-05 ...": MXNet copies every attribute many times a
// call. (Networks exported by earlier versions have the values alone, "graph 1 1e-05 0.9 0 1 0 0".)
struct Options {
  char mode[16] = "";
  int axis = 1, unbiased = 0, skip_nonfinite = 0, rank = 0, act = NONE;  // rank of X, 0: any
  int workers = 0;  // which layer it is that takes the statistics of several workers; 0: alone
  double eps = 0, momentum = 0;
  Options() = default;
  explicit Options(const char* s) {
    if (!std::strchr(s, '=')) {
      std::sscanf(s, "%15s %d %lf %lf %d %d %d %d", mode, &axis, &eps, &momentum, &unbiased,
                  &skip_nonfinite, &rank, &act);
      return;
    }
    for (; s; s = std::strchr(s, ' ')) {
      while (*s == ' ') ++s;
      const char* value = std::strchr(s, '=');
      if (!value++) return;
      const auto key = [&](const char* name) { return !std::strncmp(s, name, value - s); };
      if (key("mode=")) std::sscanf(value, "%15s", mode);
      else if (key("axis=")) axis = std::atoi(value);
      else if (key("eps=")) eps = std::atof(value);
      else if (key("momentum=")) momentum = std::atof(value);
      else if (key("unbiased=")) unbiased = std::atoi(value);
      else if (key("skip_nonfinite=")) skip_nonfinite = std::atoi(value);
      else if (key("rank=")) rank = std::atoi(value);
      else if (key("workers=")) workers = std::atoi(value);
      else if (key("activation=")) act = *value == 'r' ? RELU : *value == 's' ? SIGMOID : NONE;
    }
  }
  bool is(const char* name) const { return !std::strcmp(mode, name); }
  // mode: "train", "predict", "global" (a layer that never trains), or "graph": input 5 tells (see
  // native_graph.py)
  bool training(MXTensor* in) const {
    if (!is("graph")) return is("train");
    const int64_t last = in[5].size() - 1;
    return TRAINING == (in[5].dtype == kFloat64 ? in[5].data<double>()[last]
                                                : in[5].data<float>()[last]);
  }
};

// MXNet asks about a layer several times in a row: those of the last one asked for are kept.
Options options(const Attributes& a) {
  static thread_local std::string last;
  static thread_local Options kept;
  const std::string& given = a.at("options");
  if (given != last) kept = Options((last = given).c_str());
  return kept;
}

// What a layer in a graph calls, once a process, when it trains on one value per channel: nobody in
// Python sees the shapes there. native.py puts it here, and warns.
std::atomic<void (*)(long channels)> on_single{nullptr};
extern "C" void gluon_bn_on_single(void (*call)(long)) { on_single = call; }

// ---- a batch whose parts are on several workers (gluon_bn.workers; engine.py puts this here) -----
// MPI adds up. Its header is not needed for one function: its handles are numbers or pointers.
struct Workers {
  int (*allreduce)(const void* from, void* to, int count, intptr_t type, intptr_t op, intptr_t comm);
  intptr_t type, op, comm;
  int32_t size, idle;  // idle: this worker's part is empty, and the X it computes on does not count
};
const Workers* workers = nullptr;
extern "C" void gluon_bn_workers(const Workers* all) { workers = all; }

// Sums over the workers, in place. The first number is to say what they are sums of, for all workers
// have to ask in the same order: that is what MXNet's engine is made to do (engine.py).
void add_up_workers(std::vector<double>* values) {
  const std::vector<double> mine = *values;
  std::vector<double> given = mine;
  if (workers->idle) std::fill(given.begin() + 1, given.end(), 0.);
  if (workers->allreduce(given.data(), values->data(), static_cast<int>(given.size()), workers->type,
                         workers->op, workers->comm))
    throw std::runtime_error("the sum over the workers failed");
  if (values->front() != mine.front() * workers->size)
    throw std::runtime_error("the workers call their layers in different orders");
}
// n, mean m and variance v of a part become those of the whole batch: n, n (m - k) and
// n (v + (m - k)^2) are sums over values, with k the running mean, which all workers share.
template <typename T>
double of_whole_batch(int layer, double n, long C, const T* running_mean, double* m, double* v) {
  std::vector<double> all(2 + 2 * C, 2. * layer);
  const auto k = [&](long c) { return std::isfinite(running_mean[c]) ? double(running_mean[c]) : 0; };
  all[1] = n;
  for (long c = 0; c < C; ++c) {
    const double far = m[c] - k(c);
    all[2 + c] = n * far;
    all[2 + C + c] = n * (v[c] + far * far);
  }
  add_up_workers(&all);
  for (long c = 0; c < C; ++c) {
    const double far = all[2 + c] / all[1];
    m[c] = k(c) + far;
    v[c] = std::max(all[2 + C + c] / all[1] - far * far, 0.);
  }
  return all[1];
}

// in: X, gamma, beta, running mean, running variance[, flag]. out: Y; mean, variance, rest, mode as
// (4, C). The rest is the part of the mean that T cannot hold; the mode is for the next layer.
template <typename T>
void forward(const Options& o, MXTensor* in, MXTensor* out, const OpResource& memory) {
  const View v(out[0].shape, o.axis, in[1]);
  const T *x = in[0].data<T>(), *gamma = in[1].data<T>(), *beta = in[2].data<T>();
  T *running_mean = in[3].data<T>(), *running_var = in[4].data<T>(), *y = out[0].data<T>();
  T *mean = out[1].data<T>(), *var = mean + v.C, *rest = var + v.C, *mode = rest + v.C;
  const long sums = v.groups * v.C, coefficients = v.examples * v.C;
  double* s1 = static_cast<double*>(memory.alloc_cpu(2 * (sums + coefficients) * sizeof(double)));
  double* s2 = s1 + sums;
  T *a = reinterpret_cast<T*>(s2 + sums), *b = a + coefficients, *near = mean;
  const bool training = o.training(in);
  std::fill_n(mode, v.C, static_cast<T>(training ? TRAINING : 0));

  if (training) {
    v.first_mean(x, near);
    v.sums<T>(s1, s2, 1, [&](const Tile& t, auto type, double* sum, double* squares) {
      using P = decltype(type);
      (v.small ? moments<T, P, 1> : moments<T, P, 0>)(t, x, Columns<T>(t, near), sum, squares);
    });
    double n = static_cast<double>(v.outer) * v.inner, w = o.momentum;
    for (long c = 0; c < v.C; ++c) {
      const double shift = s1[c] / n;
      s1[c] = near[c] + shift;
      s2[c] = std::max(s2[c] / n - shift * shift, 0.);
    }
    if (o.workers && workers) n = of_whole_batch(o.workers, n, v.C, running_mean, s1, s2);
    if (n == 1 && o.is("graph"))
      if (auto call = on_single.exchange(nullptr)) call(v.C);
    for (long c = 0; c < v.C; ++c) {
      const double m = s1[c], variance = s2[c];
      mean[c] = static_cast<T>(m);
      rest[c] = static_cast<T>(m - mean[c]);
      var[c] = static_cast<T>(variance);
      if (o.skip_nonfinite && !(std::isfinite(mean[c]) && std::isfinite(var[c]))) continue;
      const double moved = o.unbiased ? variance * n / std::max(1., n - 1) : variance;
      running_mean[c] = static_cast<T>(w == 0 ? m : w * running_mean[c] + (1 - w) * m);
      running_var[c] = static_cast<T>(w == 0 ? moved : w * running_var[c] + (1 - w) * moved);
    }
  } else {
    std::copy_n(running_mean, v.C, mean);
    std::copy_n(running_var, v.C, var);
    std::fill_n(rest, v.C, T(0));
  }
  for (long i = 0; i < coefficients; ++i) {
    const double scale = gamma[i] * inverse_root(var[i % v.C], o.eps);
    a[i] = static_cast<T>(scale);
    b[i] = static_cast<T>(beta[i] - rest[i % v.C] * scale);
  }
  const bool past_cache = training && v.past_cache<T>();  // in prediction it gained nothing
  v.each(training && !past_cache, [&](const Tile& t) {
    const Columns<T> k(t, mean), at(t, a + t.example * v.C), bt(t, b + t.example * v.C);
    (v.small ? INSTANCE(affine, T, 1) : INSTANCE(affine, T, 0))(t, past_cache, x, y, k, at, bt);
  });
}

// in: dY, d(statistics) (ignored: they are constants), then the inputs and the outputs of forward.
template <typename T>
void backward(const Options& o, MXTensor* in, MXTensor* out, size_t inputs,
              const OpResource& memory) {
  MXTensor *fwd_in = in + 2, *fwd_out = fwd_in + inputs;
  const View v(out[0].shape, o.axis, out[1]);  // an input's shape may come from freed memory
  const T *dy = in[0].data<T>(), *x = fwd_in[0].data<T>(), *gamma = fwd_in[1].data<T>();
  const T *y = fwd_out[0].data<T>(), *mean = fwd_out[1].data<T>();
  const T *var = mean + v.C, *rest = var + v.C;
  T *dx = out[0].data<T>(), *dgamma = out[1].data<T>(), *dbeta = out[2].data<T>();
  for (size_t i = 3; i < inputs; ++i)  // no gradient for the statistics and the flag
    std::memset(out[i].data_ptr, 0, out[i].size() * (out[i].dtype == kFloat64 ? 8 : 4));
  const long sums = v.groups * v.C, coefficients = (v.examples + 2) * v.C;
  double* s1 = static_cast<double*>(memory.alloc_cpu((2 * sums + coefficients) * sizeof(double)));
  double* s2 = s1 + sums;
  T *p = reinterpret_cast<T*>(s2 + sums), *q = p + v.C, *a = q + v.C;

  v.sums<T>(s1, s2, v.examples, [&](const Tile& t, auto type, double* sum, double* weighted) {
    using P = decltype(type);
    (v.small ? INSTANCE(products, T, P, 1) : INSTANCE(products, T, P, 0))(
        t, dy, x, y, Columns<T>(t, mean), sum, weighted);
  });
  // What goes back through mean and variance, in training only: given statistics do not move.
  const bool training = o.training(fwd_in), shared = training && o.workers && workers;
  std::vector<double> all(2 + 2 * v.C);  // n, sums of gamma dbeta, and of gamma dgamma, from 1 on
  all[0] = 2. * o.workers + 1;
  all[1] = static_cast<double>(v.outer) * v.inner;
  double *sum = all.data() + 2, *weighted = sum + v.C;
  for (long c = 0; c < v.C; ++c) {
    const double inv = inverse_root(var[c], o.eps);
    for (long i = c; i < v.examples * v.C; i += v.C) {
      const double db = s1[i], dg = (s2[i] - rest[c] * db) * inv, g = gamma[i];
      dbeta[i] = static_cast<T>(db);
      dgamma[i] = static_cast<T>(dg);
      a[i] = static_cast<T>(g * inv);
      sum[c] += training ? g * db : 0;
      weighted[c] += training ? g * dg : 0;
    }
  }
  if (shared) add_up_workers(&all);
  for (long c = 0; c < v.C; ++c) {
    const double inv = inverse_root(var[c], o.eps), through_var = -weighted[c] / all[1] * inv * inv;
    p[c] = static_cast<T>(through_var);
    q[c] = static_cast<T>(-sum[c] / all[1] * inv - through_var * rest[c]);
  }
  if (shared && workers->idle) return static_cast<void>(std::fill_n(dx, out[0].size(), T(0)));
  const bool past_cache = v.past_cache<T>();
  v.each(!past_cache, [&](const Tile& t) {
    const Columns<T> k(t, mean), at(t, a + t.example * v.C), pt(t, p), qt(t, q);
    (v.small ? INSTANCE(gradient, T, 1) : INSTANCE(gradient, T, 0))(t, past_cache, dy, x, y, dx, k,
                                                                   at, pt, qt);
  });
}

// ---- arrays of another type than the layer computes in: X in float16, parameters in float32 -----
float from_half(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent     ? std::ldexp(1024.f + fraction, exponent - 25)
                                    : std::ldexp(static_cast<float>(fraction), -24);
  return h & 0x8000 ? -size : size;
}
uint16_t to_half(float v) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const uint16_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;   // NaN
  if (bits >= 0x477ff000) return sign | 0x7c00;  // infinity, or 65520 and more
  if (bits < 0x38800000)                         // below 2^-14
    return sign | static_cast<uint16_t>(std::nearbyint(std::fabs(v) * 16777216.f));
  return sign | (bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13;
}

template <typename T> struct Converted {  // the same tensors as arrays of T, in memory of their own
  const Tensors& given;
  Tensors as;
  std::vector<std::vector<T>> memory;
  explicit Converted(const Tensors& tensors) : given(tensors), as(tensors), memory(as.size()) {
    for (size_t t = 0; t < as.size(); ++t) {
      if (given[t].dtype == type()) continue;
      memory[t].resize(given[t].size());
      as[t].data_ptr = memory[t].data();
      as[t].dtype = type();
    }
  }
  static MXDType type() { return sizeof(T) == 8 ? kFloat64 : kFloat32; }
  static bool needed(const Tensors& tensors) {
    for (auto& t : tensors)
      if (t.dtype != type()) return true;
    return false;
  }
  void read() {
    for (size_t t = 0; t < as.size(); ++t) {
      const void* from = given[t].data_ptr;
      for (size_t i = 0; i < memory[t].size(); ++i)
        memory[t][i] = static_cast<T>(
            given[t].dtype == kFloat16   ? from_half(static_cast<const uint16_t*>(from)[i])
            : given[t].dtype == kFloat64 ? static_cast<const double*>(from)[i]
                                         : static_cast<const float*>(from)[i]);
    }
  }
  void write(size_t t) const {
    void* to = given[t].data_ptr;
    for (size_t i = 0; i < memory[t].size(); ++i) {
      const T v = memory[t][i];
      if (given[t].dtype == kFloat16) static_cast<uint16_t*>(to)[i] = to_half(v);
      else if (given[t].dtype == kFloat64) static_cast<double*>(to)[i] = v;
      else static_cast<float*>(to)[i] = static_cast<float>(v);
    }
  }
};

// run(in, out) on arrays of T; what it wrote goes back: all of `out`, and `moved` of `in`.
template <typename T, typename F>
void in_type(Tensors* in, Tensors* out, const std::vector<int>& moved, F run) {
  if (!Converted<T>::needed(*in) && !Converted<T>::needed(*out)) return run(in->data(), out->data());
  Converted<T> from(*in), to(*out);
  from.read();
  run(from.as.data(), to.as.data());
  for (int i : moved) from.write(i);
  for (size_t i = 0; i < out->size(); ++i) to.write(i);
}

// ---- what MXNet asks about the operator ---------------------------------------------------------
MXReturnValue parse(const Attributes& a, int* inputs, int* outputs) {
  *inputs = a.count("options") && options(a).is("graph") ? 6 : 5;
  *outputs = 2;
  return MX_SUCCESS;
}
MXReturnValue types(const Attributes&, std::vector<int>* in, std::vector<int>* out) {
  const int x = in->at(0), computed = x == kFloat16 ? kFloat32 : x;
  if (x > kFloat16) {
    MX_ERROR_MSG << "gluon_bn: X must be of type float16, float32 or float64; bfloat16 and the "
                    "integers are not computed with, cast X first";
    return MX_FAIL;
  }
  for (size_t i = 1; i < 5; ++i)
    if (in->at(i) < 0) in->at(i) = computed;
  out->at(0) = x;
  out->at(1) = computed;
  return MX_SUCCESS;
}
MXReturnValue shapes(const Attributes& a, std::vector<Shape>* in, std::vector<Shape>* out) {
  const Shape& x = in->at(0);  // the shapes of all others follow from X's
  const Options o = options(a);
  if (o.rank && static_cast<int>(x.size()) != o.rank) {
    MX_ERROR_MSG << "gluon_bn: this layer was built for X of rank num_dims=" << o.rank
                 << ", got rank " << x.size();
    return MX_FAIL;
  }
  int axis = o.axis;
  if (axis < 0) axis += x.size();
  if (x.size() < 2 || axis < 0 || axis >= static_cast<int>(x.size())) {
    MX_ERROR_MSG << "gluon_bn: X must have 2 dimensions or more and a known shape, and axis must "
                    "be one of them";
    return MX_FAIL;
  }
  // gamma and beta have C values, or N C where the layer is conditional, the statistics have C; in
  // which shape is all the same. In a graph it may not be known yet: (C,), or (1, C).
  const unsigned int C = x[axis];
  for (size_t i = 1; i < 5; ++i) {
    Shape& shape = in->at(i);
    size_t values = shape.empty() ? 0 : 1;
    for (size_t n : shape) values *= n;
    if (values == C || (i < 3 && axis > 0 && values == static_cast<size_t>(x[0]) * C)) continue;
    const bool one = shape.size() == 2 && shape[0] == 1, rows = shape.size() == 2 && axis > 0;
    shape = i < 3 && one ? Shape{1, C} : i < 3 && rows ? Shape{x[0], C} : Shape{C};
  }
  // The flag, unless it is what the layer before hands on: its statistics, (4, C).
  if (in->size() > 5 && in->at(5).size() != 2) in->at(5) = {1, C, 1};
  out->at(0) = x;
  out->at(1) = {4, C};
  return MX_SUCCESS;
}
MXReturnValue mutates(const Attributes& a, std::vector<int>* indices) {
  if (!options(a).is("predict")) *indices = {3, 4};
  return MX_SUCCESS;
}
template <typename F> MXReturnValue told(F run) {  // an exception must not leave this library
  try {
    run();
    return MX_SUCCESS;
  } catch (const std::exception& error) {
    MX_ERROR_MSG << "gluon_bn: " << error.what();
    return MX_FAIL;
  }
}
MXReturnValue run_forward(const Attributes& a, Tensors* in, Tensors* out, const OpResource& r) {
  const Options o = options(a);
  std::vector<int> moved;
  mutates(a, &moved);
  return told([&] {
    if (out->at(0).dtype == kFloat64)
      in_type<double>(in, out, moved, [&](auto* i, auto* y) { forward<double>(o, i, y, r); });
    else
      in_type<float>(in, out, moved, [&](auto* i, auto* y) { forward<float>(o, i, y, r); });
  });
}
MXReturnValue run_backward(const Attributes& a, Tensors* in, Tensors* out, const OpResource& r) {
  const Options o = options(a);
  const size_t n = out->size();
  return told([&] {
    if (out->at(0).dtype == kFloat64)
      in_type<double>(in, out, {}, [&](auto* i, auto* d) { backward<double>(o, i, d, n, r); });
    else
      in_type<float>(in, out, {}, [&](auto* i, auto* d) { backward<float>(o, i, d, n, r); });
  });
}
REGISTER_OP(gluon_bn_native)
    .setParseAttrs(parse).setInferType(types).setInferShape(shapes).setMutateInputs(mutates)
    .setForward(run_forward, "cpu").setBackward(run_backward, "cpu");
MXReturnValue initialize(int version) {
  return version >= 10900 && version < 20000 ? MX_SUCCESS : MX_FAIL;
}
