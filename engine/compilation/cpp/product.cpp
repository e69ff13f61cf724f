// Matrix products of compiled functions, with what is done to each entry before it is stored.
//
//   out[c] = then(a[c] b[c] + bias[c], beside[c])      a [C, M, K], b [C, K, N], all float32
//
// It is computed in tiles (`tiles.h`), for which rows of `b` have to be contiguous: a transposed `b`, and
// any that many rows of `a` are multiplied by, is copied first, in panels of a tile's width: its rows
// would be in the same few sets of the cache, and each in two lines. Threads share large products
// (`helpers.h`).

#include <cstdint>
#include <utility>

#include "helpers.h"
#include "tiles.h"

// Of PyTorch; missing where products are only measured.
extern "C" __attribute__((weak)) int32_t aoti_torch_get_data_ptr(void* tensor, void** result);

namespace {

constexpr int64_t DEPTH = 512;  // of a panel, so that it stays in the first two levels of cache
constexpr int64_t MANY_ROWS = 48;  // of `out`, which pay for a copy of `b`
constexpr int64_t FEW = 8;      // columns of `out` that are dot products, if that needs no copy
constexpr int64_t MANY = 1 << 18;  // multiplications of a product that threads share
constexpr int64_t STORE = 8;    // multiplications that cost as much as to store an entry of `out`

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

// Whether entries of `out` are computed one by one, and not in tiles.
bool is_narrow(Matrix a, Matrix b, int64_t columns) {
  return columns <= FEW && columns <= LANES && a.column == 1 && b.row == 1;
}

// At most WIDTH columns of `out`.
void multiply_panel(Matrix a, Matrix b, Output out, int64_t rows, int64_t width, int64_t depth) {
  alignas(64) static thread_local float panel[DEPTH * WIDTH];
  for (int64_t k = 0; k < depth; k += DEPTH) {
    const int64_t part = depth - k < DEPTH ? depth - k : DEPTH;
    const Matrix block = b.at(k, 0);
    const float* packed = block.data;
    int64_t stride = b.row;
    if (b.column != 1 || width < WIDTH || rows >= MANY_ROWS) {
      pack(block, width, part, panel);
      packed = panel, stride = WIDTH;
    }
    const bool is_first = k == 0, is_last = k + part == depth;
    if (width > LANES)
      column_of_tiles<2>(rows, a.at(0, k), packed, stride, out, width, part, is_first, is_last);
    else
      column_of_tiles<1>(rows, a.at(0, k), packed, stride, out, width, part, is_first, is_last);
  }
}

void multiply(Matrix a, Matrix b, Output out, int64_t rows, int64_t columns, int64_t depth) {
  if (is_narrow(a, b, columns)) return dot_products(a, b, out, rows, columns, depth);
  for (int64_t j = 0; j < columns; j += WIDTH)
    multiply_panel(a, b.at(0, j), out.at(0, j), rows, columns - j < WIDTH ? columns - j : WIDTH,
                   depth);
}

// All matrices of a call.
struct Product {
  int64_t count, rows, columns, depth;
  Matrix a, b;
  Output out;
  int64_t a_batch, b_batch, bias_batch;  // strides
  int64_t threads;

  Matrix left(int64_t c) const { return {a.data + c * a_batch, a.row, a.column}; }
  Matrix right(int64_t c) const { return {b.data + c * b_batch, b.row, b.column}; }
  Output result(int64_t c) const {
    Output to = out.at(c * rows, 0);
    to.bias = out.bias ? out.bias + c * bias_batch : nullptr;
    return to;
  }
};

void multiply_alone(const Product& p) {
  for (int64_t c = 0; c < p.count; c++)
    multiply(p.left(c), p.right(c), p.result(c), p.rows, p.columns, p.depth);
}

// Each thread takes the next panel of columns, so that a transposed `b` is copied only once.
void share_columns(const Product& p) {
  const int64_t panels = (p.columns + WIDTH - 1) / WIDTH;
  Helpers::all().share(p.count * panels, p.threads, [&](int64_t i) {
    const int64_t c = i / panels, j = i % panels * WIDTH;
    multiply_panel(p.left(c), p.right(c).at(0, j), p.result(c).at(0, j), p.rows,
                   p.columns - j < WIDTH ? p.columns - j : WIDTH, p.depth);
  });
}

// Of few columns, each thread takes some rows.
void share_rows(const Product& p) {
  const int64_t part = (p.rows + p.threads * ROWS - 1) / (p.threads * ROWS) * ROWS;
  const int64_t parts = (p.rows + part - 1) / part;
  Helpers::all().share(p.count * parts, p.threads, [&](int64_t i) {
    const int64_t c = i / parts, first = i % parts * part;
    multiply(p.left(c).at(first, 0), p.right(c), p.result(c).at(first, 0),
             p.rows - first < part ? p.rows - first : part, p.columns, p.depth);
  });
}

// A product with one column as one with a row, which lies in memory alike.
Product transposed(const Product& p) {
  const Output out = {p.out.data, nullptr, p.out.beside, p.rows, p.out.then};
  return {p.count, 1, p.rows, p.depth, {p.b.data, p.b.column, p.b.row}, {p.a.data, p.a.column, p.a.row},
          out, p.b_batch, p.a_batch, 0, p.threads};
}

void multiply_all(const Product& p) {
  if (p.columns == 1 && p.rows > 1 && p.a.row == 1 && p.a.column != 1 && !p.out.bias)
    return multiply_all(transposed(p));
  if (p.threads < 2 || p.count * p.rows * p.columns * (p.depth + STORE) < MANY)
    multiply_alone(p);
  else if (is_narrow(p.a, p.b, p.columns) || p.count * p.columns < p.threads * WIDTH)
    share_rows(p);
  else
    share_columns(p);
}

}  // namespace

// Numbers: C, M, N, K; the strides of `a`, then of `b`, by batch, row and column; the batch stride of
// `bias`; what to do then; and how many threads may share the work. `out` and `beside` are contiguous.
extern "C" void tianji_product(float* out, const float* a, const float* b, const float* bias,
                               const float* beside, const int64_t* numbers) {
  const Output to = {out, bias, beside, numbers[2], numbers[11]};
  multiply_all({numbers[0], numbers[1], numbers[2], numbers[3], {a, numbers[5], numbers[6]},
                {b, numbers[8], numbers[9]}, to, numbers[4], numbers[7], numbers[10], numbers[12]});
}

// work(of, i) for each i below `parts`, by so many threads: what generated loops call.
extern "C" void tianji_share(int64_t parts, int64_t threads, void (*work)(const void*, int64_t),
                             const void* of) {
  Helpers::all().share(parts, threads, [&](int64_t i) { work(of, i); });
}

// A product several times, to be measured.
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
    int64_t b_batch, int64_t b_row, int64_t b_column, int64_t bias_batch, int64_t then,
    int64_t threads) {
  void* data[5];
  void* const tensors[5] = {out, a, b, bias, beside};
  for (int i = 0; i < 5; i++)
    if (const int32_t error = aoti_torch_get_data_ptr(tensors[i], &data[i])) return error;
  const int64_t numbers[] = {batch,   rows,  columns,  depth,      a_batch, a_row,  a_column,
                             b_batch, b_row, b_column, bias_batch, then,    threads};
  tianji_product((float*)data[0], (const float*)data[1] + a_start, (const float*)data[2] + b_start,
                 has_bias ? (const float*)data[3] + bias_start : nullptr,
                 has_beside ? (const float*)data[4] + beside_start : nullptr, numbers);
  return 0;
}
