// The CUDA kernels for ONNX Runtime's CUDA provider: loaded at run time from the library beside
// this one, so that this one links nothing of CUDA and works the same without it.
#ifndef PPOOL_ORT_CUDA_H_
#define PPOOL_ORT_CUDA_H_

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

#include "../cuda/launch.h"

namespace ppool::ort {

// The entries of a built library (cuda/launch.h).
class CudaKernels {
 public:
  // Null where they were not built, or cannot be loaded. Loaded once and kept.
  static const CudaKernels* get() noexcept {
    static const CudaKernels kernels;
    return kernels.complete_ ? &kernels : nullptr;
  }

  void start(const ForwardJob& job, void* stream) const { check(forward_(&job, stream)); }
  void start(const UnitJob& job, void* stream) const { check(unit_(&job, stream)); }
  void start(const ResizeArgMaxJob& job, void* stream) const {
    check(resize_argmax_(&job, stream));
  }

 private:
  CudaKernels() noexcept {
#if !defined(_WIN32)
    try {
      load();
    } catch (const std::exception&) {
      complete_ = false;  // no memory for a file name: go on without
    }
#endif
  }

#if !defined(_WIN32)
  // The file that ppool/_gpu.py would take.
  static std::string path() {
    if (const char* chosen = std::getenv("PPOOL_CUDA_LIBRARY")) return chosen;
    Dl_info self = {};
    if (dladdr(reinterpret_cast<void*>(&CudaKernels::get), &self) == 0) return "";
    const std::string file = self.dli_fname;
    return file.substr(0, file.rfind('/') + 1) + "_cuda.so";
  }

  template <class Entry>
  static bool find(void* library, const char* name, Entry** entry) {
    *entry = reinterpret_cast<Entry*>(dlsym(library, name));
    return *entry != nullptr;
  }

  // Whether the library was built from these sources, or at least means the same jobs.
  static bool same_jobs(const int64_t* sizes) {
    return std::equal(job_sizes(), job_sizes() + kJobs, sizes);
  }

  void load() {
    const std::string file = path();
    void* library = file.empty() ? nullptr : dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    decltype(ppool_cuda_is_emulated)* is_emulated = nullptr;
    decltype(ppool_job_sizes)* sizes = nullptr;
    // Kernels that run on the host must never be handed addresses of a GPU.
    complete_ = find(library, "ppool_cuda_is_emulated", &is_emulated) && is_emulated() == 0 &&
                find(library, "ppool_job_sizes", &sizes) && same_jobs(sizes()) &&
                find(library, "ppool_cuda_forward", &forward_) &&
                find(library, "ppool_cuda_unit", &unit_) &&
                find(library, "ppool_cuda_resize_argmax", &resize_argmax_) &&
                find(library, "ppool_cuda_error", &error_);
  }
#endif

  void check(int error) const {
    if (error != 0) throw std::runtime_error(std::string("ai.ppool: CUDA: ") + error_(error));
  }

  bool complete_ = false;
  decltype(ppool_cuda_forward)* forward_ = nullptr;
  decltype(ppool_cuda_unit)* unit_ = nullptr;
  decltype(ppool_cuda_resize_argmax)* resize_argmax_ = nullptr;
  decltype(ppool_cuda_error)* error_ = nullptr;
};

}  // namespace ppool::ort

#endif  // PPOOL_ORT_CUDA_H_
