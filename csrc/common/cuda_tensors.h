// The CUDA library's side of a tensor: device guard, current stream, dtype code, errors.
#pragma once

#include <dlfcn.h>

#include "cuda_launch.h"
#include "tensors.h"

namespace ganops {

const char* cuda_error_string(int error);  // csrc/common/cuda_error.cu

// A function of torch's CUDA library, which is in the process wherever a CUDA tensor is. Looked up
// at run time, and by file, so that this library also loads under a torch without CUDA.
template <class F>
F torch_cuda_function(const char* name) {
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* symbol = library == nullptr ? nullptr : dlsym(library, name);
  STD_TORCH_CHECK(symbol != nullptr, "ganops: this torch has no CUDA (no ", name, ")");
  return reinterpret_cast<F>(symbol);
}

// Makes a tensor's device current, and knows the stream to launch on.
class OnDeviceOf {
  struct Guard;  // torch's
  using GetStream = AOTITorchError (*)(int32_t, void**);
  using MakeGuard = AOTITorchError (*)(int32_t, Guard**);
  using DropGuard = AOTITorchError (*)(Guard*);

 public:
  explicit OnDeviceOf(const Tensor& t) {
    static const auto get = torch_cuda_function<GetStream>("aoti_torch_get_current_cuda_stream");
    static const auto make = torch_cuda_function<MakeGuard>("aoti_torch_create_cuda_guard");
    drop_ = dropper();  // looked up before there is a guard to drop
    const int32_t index = t.get_device_index();
    STD_TORCH_CHECK(make(index, &guard_) == 0, "ganops: cannot select CUDA device ", index);
    const bool found = get(index, &stream_) == 0;
    if (!found) drop_(guard_);
    STD_TORCH_CHECK(found, "ganops: no current stream on CUDA device ", index);
  }
  ~OnDeviceOf() { drop_(guard_); }
  OnDeviceOf(const OnDeviceOf&) = delete;
  OnDeviceOf& operator=(const OnDeviceOf&) = delete;
  CudaStream stream() const { return stream_; }

 private:
  static DropGuard dropper() {
    static const auto drop = torch_cuda_function<DropGuard>("aoti_torch_delete_cuda_guard");
    return drop;
  }
  DropGuard drop_ = nullptr;
  Guard* guard_ = nullptr;
  void* stream_ = nullptr;
};

inline DType dtype_code(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::f32;
    case ScalarType::Double:
      return DType::f64;
    case ScalarType::BFloat16:
      return DType::bf16;
    case ScalarType::Half:
      return DType::f16;
    default:
      STD_TORCH_CHECK(false, "ganops: expected float64, float32, bfloat16 or float16");
  }
}

inline void check_launch(int error, const char* op) {
  STD_TORCH_CHECK(error == 0, op, ": CUDA launch failed: ", cuda_error_string(error));
}

inline const void* raw(const Tensor& t) { return t.const_data_ptr(); }
inline const void* raw(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr() : nullptr;
}

}  // namespace ganops
