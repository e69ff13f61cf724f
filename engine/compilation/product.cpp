// Matrix products of compiled functions, with what is done to each entry before it is stored.
//
//   out[c] = then(a[c] b[c] + bias[c], beside[c])      a [C, M, K], b [C, K, N], all float32
//
// A tile of `out` is accumulated in registers: for each k, ROWS entries of a column of `a` times
// COLUMNS vectors of a row of `b`. A row of `b` has to be contiguous there; a transposed `b` is
// copied in panels of that width first. The vectors are those of the processor that this is
// compiled for, by extensions that GCC and Clang share.

#include <cstdint>
#include <cstring>
#include <utility>

// Of PyTorch; missing where products are only measured.
extern "C" __attribute__((weak)) int32_t aoti_torch_get_data_ptr(void* tensor, void** result);
namespace at {
__attribute__((weak)) int get_num_threads();
}

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
constexpr int64_t DEPTH = 512;  // of a panel, so that it stays in the first two levels of cache
constexpr int64_t FEW = 8;      // columns of `out` that are dot products, if that needs no copy
constexpr int64_t MANY = 1 << 20;  // multiplications, for which threads are worth their start

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
  x = x > limit ? limit - Vector{} : x;
  x = x < -limit ? -limit - Vector{} : x;
  const Vector s = x * x;
  Vector p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  Vector q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  return x * p / q;
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

// Does what happens to all entries of a tile at the end, in place.
template <typename F>
void each(const Output& out, int64_t rows, int64_t width, F then) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < width; j += LANES) {
      float* at = out.data + i * out.row + j;
      Vector x = load(at, width - j);
      if (out.bias) x += load(out.bias + j, width - j);
      store(then(x, out.beside ? load(out.beside + i * out.row + j, width - j) : x), at, width - j);
    }
}

// Values that are not numbers stay so.
void finish(const Output& out, int64_t rows, int64_t width) {
  switch (out.then) {
    case RELU:
      return each(out, rows, width, [](Vector x, Vector) { return x < 0.0f ? Vector{} : x; });
    case TANH:
      return each(out, rows, width, [](Vector x, Vector) { return tanh_of(x); });
    case RELU_GRADIENT:
      return each(out, rows, width, [](Vector x, Vector y) { return y <= 0.0f ? Vector{} : x; });
    case TANH_GRADIENT:
      return each(out, rows, width, [](Vector x, Vector y) { return x * (1.0f - y * y); });
    default:
      if (out.bias) each(out, rows, width, [](Vector x, Vector) { return x; });
  }
}

// R rows and V vectors of columns, of which `width` exist, added to what is there unless `is_first`.
// `b` has contiguous rows of V vectors.
template <int R, int V>
__attribute__((noinline)) void tile(Matrix a, const float* b, int64_t stride, float* out,
                                    int64_t row, int64_t width, int64_t depth, bool is_first) {
  Vector sums[R][V] = {};
  for (int64_t k = 0; k < depth; k++) {
    Vector factors[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) factors[v] = *(const Vector*)(b + k * stride + v * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      const Vector factor = *a.entry(i, k) - Vector{};
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) sums[i][v] += factor * factors[v];
    }
  }
  if (is_first && width == V * LANES) {
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) *(Vector*)(out + i * row + v * LANES) = sums[i][v];
    return;
  }
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
  for (int64_t i = 0; i < rows; i += ROWS) {
    const int64_t count = rows - i < ROWS ? rows - i : ROWS;
    const Output to = out.at(i, 0);
    last_rows<ROWS, V>(count, a.at(i, 0), b, stride, to.data, out.row, width, depth, is_first);
    if (is_last) finish(to, count, width);
  }
}

// One stage of transposing a square: exchanges the blocks beside the diagonal, of S entries.
template <int S, int... L>
void exchange(Vector& x, Vector& y, std::integer_sequence<int, L...>) {
#ifdef __clang__
  const Vector first = __builtin_shufflevector(x, y, (L & S ? LANES + L - S : L)...);
  y = __builtin_shufflevector(x, y, (L & S ? LANES + L : L + S)...);
#else
  const Vector first = __builtin_shuffle(x, y, Integers{(L & S ? LANES + L - S : L)...});
  y = __builtin_shuffle(x, y, Integers{(L & S ? LANES + L : L + S)...});
#endif
  x = first;
}

template <int S>
void transpose(Vector (&square)[LANES]) {
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++)
    if (!(i & S))
      exchange<S>(square[i], square[i + S], std::make_integer_sequence<int, LANES>());
  if constexpr (S > 1) transpose<S / 2>(square);
}

// Copies `width` columns of b to rows of WIDTH, the rest of them zero.
void pack(Matrix b, int64_t width, int64_t depth, float* panel) {
  if (b.column == 1) {
    for (int64_t k = 0; k < depth; k++)
      for (int v = 0; v < COLUMNS; v++)
        *(Vector*)(panel + k * WIDTH + v * LANES) =
            width > v * LANES ? load(b.entry(k, v * LANES), width - v * LANES) : Vector{};
    return;
  }
  for (int64_t k = 0; k < depth; k += LANES)
    for (int v = 0; v < COLUMNS; v++) {
      Vector square[LANES];
      for (int j = 0; j < LANES; j++)
        square[j] = v * LANES + j < width ? load(b.entry(k, v * LANES + j), depth - k) : Vector{};
      transpose<LANES / 2>(square);
      for (int q = 0; q < LANES && k + q < depth; q++)
        *(Vector*)(panel + (k + q) * WIDTH + v * LANES) = square[q];
    }
}

// The same if `out` has few columns, and both factors are contiguous along k.
void dot_products(Matrix a, Matrix b, Output out, int64_t rows, int64_t columns, int64_t depth) {
  const int64_t whole = depth / (2 * LANES) * (2 * LANES);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      Vector even = {}, odd = {};
      for (int64_t k = 0; k < whole; k += 2 * LANES) {
        even += *(const Vector*)a.entry(i, k) * *(const Vector*)b.entry(k, j);
        odd += *(const Vector*)a.entry(i, k + LANES) * *(const Vector*)b.entry(k + LANES, j);
      }
      even += odd;
      float sum = out.bias ? out.bias[j] : 0.0f;
      for (int q = 0; q < LANES; q++) sum += even[q];
      for (int64_t k = whole; k < depth; k++) sum += *a.entry(i, k) * *b.entry(k, j);
      out.data[i * out.row + j] = sum;
    }
  out.bias = nullptr;
  finish(out, rows, columns);
}

void multiply(Matrix a, Matrix b, Output out, int64_t rows, int64_t columns, int64_t depth) {
  if (columns <= FEW && columns <= LANES && a.column == 1 && b.row == 1)
    return dot_products(a, b, out, rows, columns, depth);
  alignas(64) static thread_local float panel[DEPTH * WIDTH];
  for (int64_t j = 0; j < columns; j += WIDTH) {
    const int64_t width = columns - j < WIDTH ? columns - j : WIDTH;
    for (int64_t k = 0; k < depth; k += DEPTH) {
      const int64_t part = depth - k < DEPTH ? depth - k : DEPTH;
      const Matrix block = b.at(k, j);
      const float* packed = block.data;
      int64_t stride = b.row;
      if (b.column != 1 || width < WIDTH) {
        pack(block, width, part, panel);
        packed = panel, stride = WIDTH;
      }
      const bool is_first = k == 0, is_last = k + part == depth;
      if (width > LANES)
        column_of_tiles<2>(rows, a.at(0, k), packed, stride, out.at(0, j), width, part, is_first, is_last);
      else
        column_of_tiles<1>(rows, a.at(0, k), packed, stride, out.at(0, j), width, part, is_first, is_last);
    }
  }
}

// The same by as many threads as PyTorch uses, where that pays: each has some of the rows.
void multiply_in_parts(Matrix a, Matrix b, Output out, int64_t rows, int64_t columns,
                       int64_t depth) {
  const int threads = at::get_num_threads ? at::get_num_threads() : 1;
  if (threads < 2 || rows * columns * depth < MANY)
    return multiply(a, b, out, rows, columns, depth);
  const int64_t part = (rows + threads * ROWS - 1) / (threads * ROWS) * ROWS;
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < rows; i += part)
    multiply(a.at(i, 0), b, out.at(i, 0), rows - i < part ? rows - i : part, columns, depth);
}

}  // namespace

// Numbers: C, M, N, K; the strides of `a`, then of `b`, by batch, row and column; the batch stride of
// `bias`; and what to do then. `out` and `beside` are contiguous.
extern "C" void tianji_product(float* out, const float* a, const float* b, const float* bias,
                               const float* beside, const int64_t* numbers) {
  const int64_t rows = numbers[1], columns = numbers[2], depth = numbers[3];
  for (int64_t c = 0; c < numbers[0]; c++) {
    const Matrix left = {a + c * numbers[4], numbers[5], numbers[6]};
    const Matrix right = {b + c * numbers[7], numbers[8], numbers[9]};
    const int64_t before = c * rows * columns;
    const Output to = {out + before, bias ? bias + c * numbers[10] : bias,
                       beside ? beside + before : beside, columns, numbers[11]};
    multiply_in_parts(left, right, to, rows, columns, depth);
  }
}

// The same several times, to be measured.
extern "C" void tianji_product_repeated(int64_t count, float* out, const float* a, const float* b,
                                        const float* bias, const float* beside,
                                        const int64_t* numbers) {
  for (int64_t i = 0; i < count; i++) tianji_product(out, a, b, bias, beside, numbers);
}

// What a compiled function calls, by the interface of PyTorch's ahead-of-time compiler: tensors,
// where in each of them the matrices start, whether there is a bias and something beside, and the
// numbers.
extern "C" int32_t aoti_torch_cpu_tianji_product(
    void* out, void* a, void* b, void* bias, void* beside, int64_t a_start, int64_t b_start,
    int64_t bias_start, int64_t beside_start, int64_t has_bias, int64_t has_beside, int64_t batch,
    int64_t rows, int64_t columns, int64_t depth, int64_t a_batch, int64_t a_row, int64_t a_column,
    int64_t b_batch, int64_t b_row, int64_t b_column, int64_t bias_batch, int64_t then) {
  void* data[5];
  void* const tensors[5] = {out, a, b, bias, beside};
  for (int i = 0; i < 5; i++)
    if (const int32_t error = aoti_torch_get_data_ptr(tensors[i], &data[i])) return error;
  const int64_t numbers[] = {batch,   rows,  columns,  depth,      a_batch, a_row,
                             a_column, b_batch, b_row, b_column, bias_batch, then};
  tianji_product((float*)data[0], (const float*)data[1] + a_start, (const float*)data[2] + b_start,
                 has_bias ? (const float*)data[3] + bias_start : nullptr,
                 has_beside ? (const float*)data[4] + beside_start : nullptr, numbers);
  return 0;
}
