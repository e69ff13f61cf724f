// Tiles of a matrix product, accumulated in registers: for each k, ROWS entries of a column of `a`
// times COLUMNS vectors of a row of `b`. The vectors are those of the processor that this is compiled
// for, by extensions that GCC and Clang share.

#pragma once

#include <cstdint>
#include <cstring>

// Functions whose inner loop needs all registers.
#if defined(__clang__)
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noipa))
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6;
#else
constexpr int LANES = 4, ROWS = 4;
#endif
constexpr int COLUMNS = 2;
constexpr int WIDTH = COLUMNS * LANES;
constexpr int AHEAD = 8;  // columns of `a` that are on their way to the cache

typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));

enum Then { NOTHING, RELU, TANH, RELU_GRADIENT, TANH_GRADIENT };

struct Matrix {
  const float* data;
  int64_t row, column;  // strides

  Matrix at(int64_t i, int64_t j) const { return {entry(i, j), row, column}; }
  const float* entry(int64_t i, int64_t j) const { return data + i * row + j * column; }
};

// What happens to a tile at the end.
struct Output {
  float* data;
  const float* bias;    // null: none
  const float* beside;  // in the layout of `data`; of the gradients the activation's output
  int64_t row;          // stride
  int64_t then;

  Output at(int64_t i, int64_t j) const {
    return {data + i * row + j, bias ? bias + j : bias, beside ? beside + i * row + j : beside, row,
            then};
  }
};

// A rational approximation (that of Eigen and XLA), right to a few units of the last place.
Vector tanh_of(Vector x) {
  const float limit = 7.90531110763549805f;
  Vector y = x > limit ? limit - Vector{} : x;
  y = y < -limit ? -limit - Vector{} : y;
  const Vector s = y * y;
  Vector p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  Vector q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  const Vector one = 1.0f - Vector{}, most = x > limit ? one : y * p / q;
  return x < -limit ? -one : most;
}

Vector load(const float* from, int64_t count) {
  if (count >= LANES) return *(const Vector*)from;
  Vector loaded = {};
  for (int64_t q = 0; q < count; q++) loaded[q] = from[q];
  return loaded;
}

void store(Vector x, float* to, int64_t count) {
  if (count >= LANES)
    *(Vector*)to = x;
  else
    for (int64_t q = 0; q < count; q++) to[q] = x[q];
}

// What happens to entries at the end, and what of the activation's output there is beside them.
// Values that are not numbers stay so.
struct Nothing {
  Vector operator()(Vector x, Vector) const { return x; }
};
struct Relu {
  Vector operator()(Vector x, Vector) const { return x < 0.0f ? Vector{} : x; }
};
struct Tanh {
  Vector operator()(Vector x, Vector) const { return tanh_of(x); }
};
struct ReluGradient {
  Vector operator()(Vector x, Vector y) const { return y <= 0.0f ? Vector{} : x; }
};
struct TanhGradient {
  Vector operator()(Vector x, Vector y) const { return x * (1.0f - y * y); }
};

// with(what happens at the end)
template <typename With>
void with_then(int64_t then, With with) {
  switch (then) {
    case RELU:
      return with(Relu());
    case TANH:
      return with(Tanh());
    case RELU_GRADIENT:
      return with(ReluGradient());
    case TANH_GRADIENT:
      return with(TanhGradient());
    default:
      return with(Nothing());
  }
}

// Does it to all entries of a tile, in place.
void finish(const Output& out, int64_t rows, int64_t width) {
  if (out.then == NOTHING && !out.bias) return;
  with_then(out.then, [&](auto then) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < width; j += LANES) {
        float* at = out.data + i * out.row + j;
        Vector x = load(at, width - j);
        if (out.bias) x += load(out.bias + j, width - j);
        const Vector y = out.beside ? load(out.beside + i * out.row + j, width - j) : x;
        store(then(x, y), at, width - j);
      }
  });
}

// Sums of products of R rows of `a` and V vectors of rows of `b`, which are contiguous there.
template <int R, int V>
inline __attribute__((always_inline)) void sum_up(const Matrix& a, const float* b, int64_t stride,
                                                  int64_t depth, Vector (&sums)[R][V]) {
  const char* left = (const char*)a.data;  // strides in bytes need fewer registers
  const int64_t row = a.row * 4, column = a.column * 4;
  // Of a transposed `a`, each k is in another line of the cache.
  const int64_t ahead = column == 4 ? R * row : AHEAD * column;
  for (int64_t k = 0; k < depth; k++, left += column, b += stride) {
    __builtin_prefetch(left + ahead);
    Vector factors[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) factors[v] = *(const Vector*)(b + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      const Vector factor = *(const float*)(left + i * row) - Vector{};
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) sums[i][v] += factor * factors[v];
    }
  }
}

// R rows and V whole vectors of columns, finished before they are stored.
template <int R, int V, typename Then>
APART void whole_tile(const Matrix& a, const float* b, int64_t stride, const Output& out,
                      int64_t depth, Then then) {
  Vector sums[R][V] = {}, bias[V] = {};
  sum_up(a, b, stride, depth, sums);
  if (out.bias)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) bias[v] = *(const Vector*)(out.bias + v * LANES);
  // Copies, which no store below can change.
  float* const data = out.data;
  const float* const beside = out.beside ? out.beside : data;
  const int64_t next = out.row;
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      const int64_t at = i * next + v * LANES;
      *(Vector*)(data + at) = then(sums[i][v] + bias[v], *(const Vector*)(beside + at));
    }
}

// R rows and V vectors of columns, of which `width` exist, added to what is there unless `is_first`.
template <int R, int V>
APART void tile(const Matrix& a, const float* b, int64_t stride, float* out, int64_t row,
                int64_t width, int64_t depth, bool is_first) {
  Vector sums[R][V] = {};
  sum_up(a, b, stride, depth, sums);
  Vector copied[R][V];  // so that `sums` stay in registers, though these are indexed
  memcpy(copied, sums, sizeof(sums));
  for (int i = 0; i < R; i++)
    for (int v = 0; v < V; v++) {
      float* at = out + i * row + v * LANES;
      const int64_t count = width - v * LANES;
      store(is_first ? copied[i][v] : load(at, count) + copied[i][v], at, count);
    }
}

template <int R, int V>
void last_rows(int64_t count, Matrix a, const float* b, int64_t stride, float* out, int64_t row,
               int64_t width, int64_t depth, bool is_first) {
  if constexpr (R > 0) {
    if (count == R)
      tile<R, V>(a, b, stride, out, row, width, depth, is_first);
    else
      last_rows<R - 1, V>(count, a, b, stride, out, row, width, depth, is_first);
  }
}

// All rows of some columns.
template <int V>
void column_of_tiles(int64_t rows, Matrix a, const float* b, int64_t stride, Output out,
                     int64_t width, int64_t depth, bool is_first, bool is_last) {
  int64_t i = 0;
  if (is_first && is_last && width == V * LANES)
    with_then(out.then, [&](auto then) {
      for (; i + ROWS <= rows; i += ROWS)
        whole_tile<ROWS, V>(a.at(i, 0), b, stride, out.at(i, 0), depth, then);
    });
  for (; i < rows; i += ROWS) {
    const int64_t count = rows - i < ROWS ? rows - i : ROWS;
    const Output to = out.at(i, 0);
    last_rows<ROWS, V>(count, a.at(i, 0), b, stride, to.data, out.row, width, depth, is_first);
    if (is_last) finish(to, count, width);
  }
}

}  // namespace
