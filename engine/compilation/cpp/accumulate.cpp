// Sums that go backwards in time, of compiled functions (`engine/algorithms/returns.py`):
//
//   x[t] = delta[t] + trace[t] x[t + 1]      with x[T] = 0; all float32 [T, B]

#include <cstdint>

// Of PyTorch; missing where functions have no tensors.
extern "C" __attribute__((weak)) int32_t aoti_torch_get_data_ptr(void* tensor, void** result);

// Numbers: T and B.
extern "C" void tianji_accumulate(float* out, const float* delta, const float* trace,
                                  const int64_t* numbers) {
  const int64_t num_steps = numbers[0], num_columns = numbers[1];
  for (int64_t t = num_steps - 1; t >= 0; t--) {
    const int64_t row = t * num_columns;
    if (t == num_steps - 1)
      for (int64_t j = 0; j < num_columns; j++) out[row + j] = delta[row + j];
    else
      for (int64_t j = 0; j < num_columns; j++)
        out[row + j] = delta[row + j] + trace[row + j] * out[row + num_columns + j];
  }
}

// What a compiled function calls, by the interface of PyTorch's ahead-of-time compiler: tensors, and
// where in those that are read the first entry is.
extern "C" int32_t aoti_torch_cpu_tianji_accumulate(void* out, void* delta, void* trace,
                                                    int64_t delta_start, int64_t trace_start,
                                                    int64_t num_steps, int64_t num_columns) {
  void* data[3];
  void* const tensors[3] = {out, delta, trace};
  for (int i = 0; i < 3; i++)
    if (const int32_t error = aoti_torch_get_data_ptr(tensors[i], &data[i])) return error;
  const int64_t numbers[] = {num_steps, num_columns};
  tianji_accumulate((float*)data[0], (const float*)data[1] + delta_start,
                    (const float*)data[2] + trace_start, numbers);
  return 0;
}
