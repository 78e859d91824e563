// The operators of domain "ai.ppool", opset 1, for ONNX Runtime on the CPU and on CUDA.
#include <atomic>
#include <new>
#include <type_traits>

#include "../cpu/launch.h"
#include "ort_context.h"
#include "ort_cuda.h"

namespace ppool::ort {
namespace {

// More parts than any pool has threads would only cost; fewer would idle some.
constexpr int64_t kMostParts = 64;

// Pixels of a side of blocks; no network shuffles more.
constexpr int64_t kMostSide = 64;

// Where an operator runs: an execution provider and, for CUDA, the kernels.
struct Device {
  const char* provider;
  const CudaKernels* cuda;  // null on the CPU
};

// One operator at one element type: what ONNX Runtime sees, then what our callbacks need.
struct Op : CustomOp {
  const char* name;
  Device device;
  DType dtype;
  ElementType element;
};

// What a node keeps between runs.
struct Kernel {
  const Api* api;
  const CudaKernels* cuda;
  DType dtype;

  Kernel(const Api* owner, const Op& op) : api(owner), cuda(op.device.cuda), dtype(op.dtype) {}
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  virtual ~Kernel() = default;
  virtual void compute(KernelContext* context) const = 0;

 protected:
  // Runs a job on the session's own stream or threads.
  template <class Job>
  void run(const KernelContext* context, const Job& job) const {
    if (cuda == nullptr) return run_on_cpu(context, job);
    void* stream = nullptr;
    check(api->KernelContext_GetGPUComputeStream(context, &stream));
    cuda->start(job, stream);
  }

  template <class Job>
  void run_on_cpu(const KernelContext* context, const Job& job) const {
    Parts parts(plan(job), kMostParts);
    const auto run_part = [](void* data, size_t part) {
      static_cast<Parts*>(data)->run(static_cast<int64_t>(part));
    };
    if (parts.count() == 1) {
      parts.run(0);
    } else if (parts.count() > 1) {
      const size_t count = static_cast<size_t>(parts.count());
      check(api->KernelContext_ParallelFor(context, run_part, count, 0, &parts));
    }
    if (parts.out_of_memory()) throw std::bad_alloc();
  }
};

// The window attributes of a node; n, c, h and w are left 0.
template <class Attributes>
Pool2d read_window(const Attributes& node) {
  Pool2d pool = {};
  const Shape kernel = node.read_ints("kernel_shape", 2), strides = node.read_ints("strides", 2);
  const Shape pads = node.read_ints("pads", 4), dilations = node.read_ints("dilations", 2);
  for (size_t axis = 0; axis < 2; ++axis) {
    pool.kernel[axis] = kernel[axis];
    pool.stride[axis] = strides[axis];
    pool.padding[axis] = pads[axis];
    pool.dilation[axis] = dilations[axis];
    if (kernel[axis] < 1) refuse("kernel_shape", "at least 1", to_text(kernel));
    if (strides[axis] < 1) refuse("strides", "at least 1", to_text(strides));
    if (dilations[axis] < 1) refuse("dilations", "at least 1", to_text(dilations));
    if (pads[axis] < 0 || 2 * pads[axis] > kernel[axis]) {
      refuse("pads", "0 to half of kernel_shape " + to_text(kernel), to_text(pads));
    }
    if (pads[axis] != pads[axis + 2]) {
      refuse("pads", "the same at both ends of an axis", to_text(pads));
    }
  }
  pool.ceil_mode = node.read_int("ceil_mode") != 0;
  pool.is_signed = node.read_int("signed") != 0;
  return pool;
}

// The window over an input of this shape and type.
Pool2d fit(Pool2d pool, const Shape& shape, DType dtype) {
  if (shape.size() != 4) refuse("X", "4 dimensions [N, C, H, W]", to_text(shape));
  pool.n = shape[0];
  pool.c = shape[1];
  pool.h = shape[2];
  pool.w = shape[3];
  pool.dtype = dtype;
  if (!is_valid(pool)) refuse("X", "a size that the window fits in", to_text(shape));
  return pool;
}

Shape pooled_shape(const Pool2d& pool) {
  return {pool.n, pool.c, pooled_size(pool, 0), pooled_size(pool, 1)};
}

// Pooling with given exponents (Eq. 1 and 2): X [N, C, H, W], alpha -> Y, shaped as alpha.
struct PPool final : Kernel {
  static constexpr const char* kName = "PPool";
  static constexpr size_t kInputs = 2;
  static constexpr bool kLabels = false;

  PPool(const Api* api, const Op& op, const NodeAttributes& node)
      : Kernel(api, op), window(read_window(node)) {}

  void compute(KernelContext* context) const override {
    const Input x = read_input(api, context, 0), alpha = read_input(api, context, 1);
    const Pool2d pool = fit(window, x.shape, dtype);
    const Shape pooled = pooled_shape(pool);
    expect_shape("alpha", pooled, alpha.shape);
    const ForwardJob job{pool, x.data, alpha.data, make_output(api, context, pooled)};
    run(context, job);
  }

  static void infer(const Api* api, ShapeContext* context) {
    const TensorInfo* alpha = input_info(api, context, 1);
    declare_output(api, context, element_of(api, alpha), symbolic_shape(api, alpha));
  }

  Pool2d window;
};

// The name of an axis of unknown size after pooling. ONNX Runtime takes equal names for equal
// sizes, so it says all that the size depends on.
std::string pooled_name(const Pool2d& pool, int axis, const std::string& name) {
  return name + " pooled " + to_text({pool.kernel[axis], pool.stride[axis], pool.padding[axis],
                                      pool.dilation[axis], pool.ceil_mode});
}

// The unit of Figure 1 (Eq. 5): X, w_region [C, 1, kh, kw], and prelu_slope, w_point and b_point
// [C] -> Y.
struct PPoolUnit final : Kernel {
  static constexpr const char* kName = "PPoolUnit";
  static constexpr size_t kInputs = 5;
  static constexpr bool kLabels = false;

  PPoolUnit(const Api* api, const Op& op, const NodeAttributes& node)
      : Kernel(api, op),
        window(read_window(node)),
        branch{node.read_float("input_scale"), node.read_float("alpha_min"),
               node.read_float("alpha_max")} {
    if (!(branch.alpha_min <= branch.alpha_max)) {
      refuse("alpha_min", "at most alpha_max " + std::to_string(branch.alpha_max),
             std::to_string(branch.alpha_min));
    }
  }

  void compute(KernelContext* context) const override {
    const Input x = read_input(api, context, 0), w_region = read_input(api, context, 1);
    const Input prelu_slope = read_input(api, context, 2);
    const Input w_point = read_input(api, context, 3), b_point = read_input(api, context, 4);
    const Pool2d pool = fit(window, x.shape, dtype);
    expect_shape("w_region", {pool.c, 1, pool.kernel[0], pool.kernel[1]}, w_region.shape);
    expect_shape("prelu_slope", {pool.c}, prelu_slope.shape);
    expect_shape("w_point", {pool.c}, w_point.shape);
    expect_shape("b_point", {pool.c}, b_point.shape);
    const Shape pooled = pooled_shape(pool);
    const UnitJob job{pool, branch, x.data, w_region.data, prelu_slope.data, w_point.data,
                      b_point.data, make_output(api, context, pooled)};
    run(context, job);
  }

  static void infer(const Api* api, ShapeContext* context) {
    const TensorInfo* x = input_info(api, context, 0);
    SymbolicShape shape = symbolic_shape(api, x);
    if (shape.sizes.size() != 4) return;
    const InferAttributes node{api, context};
    Pool2d pool = read_window(node);
    pool.h = shape.sizes[2];
    pool.w = shape.sizes[3];
    for (int axis = 0; axis < 2; ++axis) {
      const bool known = shape.sizes[2 + axis] >= 0;
      shape.sizes[2 + axis] = known ? pooled_size(pool, axis) : -1;
      std::string& name = shape.names[2 + axis];
      if (!known && name.empty()) return;
      name = known ? "" : pooled_name(pool, axis, name);
    }
    declare_output(api, context, element_of(api, x), shape);
  }

  Pool2d window;
  SideBranch branch;
};

// What is asked for of `classes`, and of pixels of which there are `h` x `w`.
void expect_logits(const Shape& shape, int64_t h, int64_t w, int64_t least, int64_t most) {
  if (shape[1] < least || shape[1] > most) {
    const std::string range = std::to_string(least) + " to " + std::to_string(most);
    refuse("logits", range + " classes", to_text(shape));
  }
  if (h < 1 || w < 1) refuse("logits", "at least one pixel", to_text(shape));
}

// Height and width, each `least` or more.
const int64_t* read_size(const char* name, const Input& input, int64_t least) {
  expect_shape(name, {2}, input.shape);
  const int64_t* const size = static_cast<const int64_t*>(input.data);
  if (size[0] < least || size[1] < least) {
    refuse(name, std::to_string(least) + " or more", to_text({size[0], size[1]}));
  }
  return size;
}

// logits [N, K, h, w], or [N, K, s, s, h, w] of blocks of s x s pixels, and size [H, W] -> labels
// [N, H, W]: uint8, or uint16 of more classes than that holds. ONNX Runtime tells operators of one
// name apart by their inputs only.
template <bool kWide>
struct ResizeArgMax final : Kernel {
  static constexpr const char* kName = kWide ? "ResizeArgMax16" : "ResizeArgMax";
  static constexpr size_t kInputs = 2;
  static constexpr bool kLabels = true;
  static constexpr ElementType kLabel = kWide ? kUInt16 : kUInt8;

  ResizeArgMax(const Api* api, const Op& op, const NodeAttributes&) : Kernel(api, op) {}

  void compute(KernelContext* context) const override {
    const Input logits = read_input(api, context, 0), size = read_input(api, context, 1);
    const Shape& shape = logits.shape;
    const bool in_blocks = shape.size() == 6 && shape[2] == shape[3] && shape[2] <= kMostSide;
    if (shape.size() != 4 && !in_blocks) {
      refuse("logits", "[N, K, h, w] or [N, K, s, s, h, w]", to_text(shape));
    }
    const int64_t side = in_blocks ? shape[2] : 1;
    const int64_t h = shape[shape.size() - 2] * side, w = shape[shape.size() - 1] * side;
    expect_logits(shape, h, w, kWide ? 257 : 1, kWide ? kMostClasses : 256);
    const int64_t* target = read_size("size", size, 0);
    void* labels = make_output(api, context, {shape[0], target[0], target[1]});
    const ResizeArgMaxJob job{shape[0],  shape[1], h,    w, target[0],
                              target[1], dtype,    static_cast<int32_t>(side), logits.data, labels};
    run(context, job);
  }
};

// logits [N, K, h, w], between [h', w'] and size [H, W] -> labels uint8 [N, H, W], on the CPU.
struct ResizeTwiceArgMax final : Kernel {
  static constexpr const char* kName = "ResizeTwiceArgMax";
  static constexpr size_t kInputs = 3;
  static constexpr bool kLabels = true;
  static constexpr ElementType kLabel = kUInt8;

  ResizeTwiceArgMax(const Api* api, const Op& op, const NodeAttributes&) : Kernel(api, op) {}

  void compute(KernelContext* context) const override {
    const Input logits = read_input(api, context, 0);
    const Input first = read_input(api, context, 1), last = read_input(api, context, 2);
    const Shape& shape = logits.shape;
    if (shape.size() != 4) refuse("logits", "[N, K, h, w]", to_text(shape));
    expect_logits(shape, shape[2], shape[3], 1, 256);
    const int64_t* between = read_size("between", first, 1);
    const int64_t* target = read_size("size", last, 0);
    void* labels = make_output(api, context, {shape[0], target[0], target[1]});
    const auto labelled = [&](int64_t h, int64_t w) {
      return ResizeArgMaxJob{shape[0],  shape[1], h, w, target[0],
                             target[1], dtype,    1, logits.data, labels};
    };
    if (between[0] == target[0] && between[1] == target[1]) {
      run(context, labelled(shape[2], shape[3]));
    } else {
      const ResizeTwiceJob job{labelled(between[0], between[1]), shape[2], shape[3]};
      run_on_cpu(context, job);
    }
  }
};

const Op& op_of(const CustomOp* op) { return *static_cast<const Op*>(op); }

// Shape inference is handed no table, so it is remembered when the library is registered.
std::atomic<const Api*> registered_api{nullptr};

template <class K>
Op make_op(const Device& device, DType dtype, ElementType element) {
  Op op = {};
  op.name = K::kName;
  op.device = device;
  op.dtype = dtype;
  op.element = element;
  op.version = kApiVersion;
  op.GetName = [](const CustomOp* self) { return op_of(self).name; };
  op.GetExecutionProviderType = [](const CustomOp* self) { return op_of(self).device.provider; };
  op.GetInputTypeCount = [](const CustomOp*) { return K::kInputs; };
  op.GetInputType = [](const CustomOp* self, size_t index) {
    return K::kLabels && index > 0 ? kInt64 : op_of(self).element;
  };
  op.GetOutputTypeCount = [](const CustomOp*) { return size_t{1}; };
  op.GetOutputType = [](const CustomOp* self, size_t) {
    if constexpr (K::kLabels) return K::kLabel;
    return op_of(self).element;
  };
  op.GetInputCharacteristic = [](const CustomOp*, size_t) { return kRequired; };
  op.GetOutputCharacteristic = [](const CustomOp*, size_t) { return kRequired; };
  op.GetInputMemoryType = [](const CustomOp* self, size_t index) {
    // The size of labels is read on the host; on the CPU all memory is.
    const bool on_host = K::kLabels && index > 0 && op_of(self).device.cuda != nullptr;
    return on_host ? kCpuInput : kDefaultMemory;
  };
  op.CreateKernelV2 = [](const CustomOp* self, const Api* api, const KernelInfo* info,
                         void** kernel) {
    return guarded(api, [&] {
      *kernel = static_cast<Kernel*>(new K(api, op_of(self), NodeAttributes{api, info}));
    });
  };
  op.KernelComputeV2 = [](void* kernel, KernelContext* context) {
    const Kernel& of = *static_cast<const Kernel*>(kernel);
    return guarded(of.api, [&] { of.compute(context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  if constexpr (!K::kLabels) {  // the size of labels is known only when they are made
    op.InferOutputShapeFn = [](const CustomOp*, ShapeContext* context) {
      const Api* api = registered_api;
      return guarded(api, [&] { K::infer(api, context); });
    };
  }
  op.GetStartVersion = [](const CustomOp*) { return 1; };
  op.GetEndVersion = [](const CustomOp*) { return 1; };
  return op;
}

// Operators of the same name differ in element type and provider; ONNX Runtime takes the fitting.
template <class K>
std::vector<Op> make_ops() {
  const Device cpu{"CPUExecutionProvider", nullptr};
  std::vector<Op> ops = {
      make_op<K>(cpu, DType::kFloat32, kFloat),
      make_op<K>(cpu, DType::kFloat16, kFloat16),
      make_op<K>(cpu, DType::kBFloat16, kBFloat16),
  };
  const CudaKernels* kernels = CudaKernels::get();
  if (kernels == nullptr || std::is_same_v<K, ResizeTwiceArgMax>) return ops;
  // The provider inside onnxruntime-gpu, and the one that comes as a package of its own.
  for (const char* provider : {"CUDAExecutionProvider", "CudaPluginExecutionProvider"}) {
    const Device gpu{provider, kernels};
    ops.push_back(make_op<K>(gpu, DType::kFloat32, kFloat));
    ops.push_back(make_op<K>(gpu, DType::kFloat16, kFloat16));
    ops.push_back(make_op<K>(gpu, DType::kBFloat16, kBFloat16));
  }
  return ops;
}

template <class K>
void add_op(const Api* api, CustomOpDomain* domain) {
  static const std::vector<Op> ops = make_ops<K>();
  for (const Op& op : ops) check(api->CustomOpDomain_Add(domain, &op));
}

// The domain has to outlive every session, so there is one and it is never released.
CustomOpDomain* make_domain(const Api* api) {
  CustomOpDomain* domain = nullptr;
  check(api->CreateCustomOpDomain("ai.ppool", &domain));
  add_op<PPool>(api, domain);
  add_op<PPoolUnit>(api, domain);
  add_op<ResizeArgMax<false>>(api, domain);
  add_op<ResizeArgMax<true>>(api, domain);
  add_op<ResizeTwiceArgMax>(api, domain);
  return domain;
}

}  // namespace
}  // namespace ppool::ort

// The entry that SessionOptions.register_custom_ops_library looks for.
#if defined(_WIN32)
extern "C" __declspec(dllexport)
#else
extern "C" __attribute__((visibility("default")))
#endif
ppool::ort::Status* PPOOL_ORT_CALL RegisterCustomOps(ppool::ort::SessionOptions* options,
                                                     const ppool::ort::ApiBase* base) {
  using namespace ppool::ort;
  const Api* api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    return base->GetApi(1)->CreateStatus(kFail, "ai.ppool needs ONNX Runtime 1.21 or newer");
  }
  return guarded(api, [&] {
    registered_api = api;
    static CustomOpDomain* const domain = make_domain(api);
    check(api->AddCustomOpDomain(options, domain));
  });
}
