// Calls a compiled function once for each row of some of its arguments, without returning between.
//
// It is linked into the library of that function, whose interface is that of PyTorch's
// ahead-of-time compiler. The function writes into its arguments and returns nothing, so what one
// call has written can be read by the next.

#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" {
int32_t aoti_torch_device_type_cpu();
int32_t aoti_torch_create_tensor_from_blob(void* data, int64_t num_axes, const int64_t* sizes,
                                           const int64_t* strides, int64_t offset, int32_t dtype,
                                           int32_t device, int32_t device_index, void** made);
int32_t aoti_torch_new_tensor_handle(void* of, void** made);
int32_t aoti_torch_delete_tensor_object(void* handle);
int32_t AOTInductorModelContainerCreateWithDevice(void** container, size_t num_models,
                                                  const char* device, const char* directory);
int32_t AOTInductorModelContainerRun(void* container, void** inputs, size_t num_inputs,
                                     void** outputs, size_t num_outputs, void* stream,
                                     void* proxies);
}

namespace {

// One argument: the tensor itself if it is the same in each call, else its first row.
struct Argument {
  char* data;
  int64_t bytes_per_call;  // 0: the same in each call
  int32_t dtype;
  int64_t num_axes;
  const int64_t *sizes, *strides;

  int32_t make(int64_t number, void** made) const {
    return aoti_torch_create_tensor_from_blob(data + number * bytes_per_call, num_axes, sizes,
                                              strides, 0, dtype, aoti_torch_device_type_cpu(), 0,
                                              made);
  }
};

// Handles, which a call takes over; those that it did not take are freed.
struct Handles {
  std::vector<void*> owned;

  explicit Handles(size_t count) : owned(count, nullptr) {}
  ~Handles() {
    for (void* handle : owned)
      if (handle) aoti_torch_delete_tensor_object(handle);
  }
};

}  // namespace

// A function that can be called. It lives as long as the process.
extern "C" int32_t tianji_open(void** function) {
  return AOTInductorModelContainerCreateWithDevice(function, 1, "cpu", nullptr);
}

// Calls it `count` times with `num_arguments` arguments.
//
// data, bytes_per_call: of each argument.
// described: for each argument its dtype (as a number of PyTorch), the number of its axes, their
//   sizes and their strides.
// Returns 0, or else something failed, which PyTorch has told standard error.
extern "C" int32_t tianji_scan_opened(void* function, int64_t count, int64_t num_arguments,
                               void* const* data, const int64_t* bytes_per_call,
                               const int64_t* described) {
  std::vector<Argument> arguments;
  for (int64_t i = 0; i < num_arguments; i++) {
    const int64_t num_axes = described[1];
    arguments.push_back({(char*)data[i], bytes_per_call[i], (int32_t)described[0], num_axes,
                         described + 2, described + 2 + num_axes});
    described += 2 + 2 * num_axes;
  }
  Handles same(num_arguments);
  for (int64_t i = 0; i < num_arguments; i++)
    if (!arguments[i].bytes_per_call)
      if (const int32_t error = arguments[i].make(0, &same.owned[i])) return error;
  for (int64_t number = 0; number < count; number++) {
    Handles given(num_arguments);
    for (int64_t i = 0; i < num_arguments; i++) {
      void** made = &given.owned[i];
      const int32_t error = same.owned[i] ? aoti_torch_new_tensor_handle(same.owned[i], made)
                                          : arguments[i].make(number, made);
      if (error) return error;
    }
    std::vector<void*> taken = given.owned;
    given.owned.assign(num_arguments, nullptr);
    const int32_t error = AOTInductorModelContainerRun(function, taken.data(), num_arguments,
                                                       nullptr, 0, nullptr, nullptr);
    if (error) return error;
  }
  return 0;
}
