// What the three operators differ in: attributes, inputs, outputs, shapes and launch.
#ifndef PPOOL_TENSORRT_OPERATORS_H_
#define PPOOL_TENSORRT_OPERATORS_H_

#include "../cuda/launch.h"
#include "fields.h"

namespace ppool::tensorrt {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::IDimensionExpr;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginTensorDesc;

// One run: descriptions and addresses of all tensors.
struct Call {
  const PluginTensorDesc* input;
  const PluginTensorDesc* output;
  const void* const* inputs;
  void* const* outputs;
  void* stream;

  DType dtype() const {
    switch (input[0].type) {
      case DataType::kHALF:
        return DType::kFloat16;
      case DataType::kBF16:
        return DType::kBFloat16;
      default:
        return DType::kFloat32;
    }
  }

  // The pooling of the first input.
  Pool2d pool(const Settings& settings) const {
    Pool2d pool = pool_of(settings, input[0].dims);
    pool.dtype = dtype();
    return pool;
  }
};

// The length of one pooled axis, as pooled_size of ppool_params.h, of a length not yet known.
inline const IDimensionExpr* pooled_expression(const Settings& settings, int axis,
                                               const IDimensionExpr& size, IExprBuilder& build) {
  const auto constant = [&](int64_t value) -> const IDimensionExpr& {
    return *build.constant(value);
  };
  const auto apply = [&](DimensionOperation op, const IDimensionExpr& a,
                         const IDimensionExpr& b) -> const IDimensionExpr& {
    return *build.operation(op, a, b);
  };
  const int64_t stride = settings.strides[axis], padding = settings.pads[axis];
  const int64_t extent = settings.dilations[axis] * (settings.kernel_shape[axis] - int64_t{1}) + 1;
  const int64_t more = 2 * padding - extent + (settings.ceil_mode != 0 ? stride - 1 : 0);
  const IDimensionExpr& free = apply(DimensionOperation::kSUM, size, constant(more));
  const IDimensionExpr& last = apply(DimensionOperation::kFLOOR_DIV, free, constant(stride));
  if (settings.ceil_mode == 0) return &apply(DimensionOperation::kSUM, last, constant(1));
  // The last window does not count where it would start in the right padding.
  const IDimensionExpr& start = apply(DimensionOperation::kPROD, last, constant(stride));
  const IDimensionExpr& end = apply(DimensionOperation::kSUM, size, constant(padding));
  return &apply(DimensionOperation::kSUM, last, apply(DimensionOperation::kLESS, start, end));
}

inline DimsExprs pooled_shape(const Settings& settings, const DimsExprs& x, IExprBuilder& build) {
  DimsExprs shape = x;
  for (int axis = 0; axis < 2; ++axis) {
    shape.d[2 + axis] = pooled_expression(settings, axis, *x.d[2 + axis], build);
  }
  return shape;
}

inline bool same(const nvinfer1::Dims& dims, std::initializer_list<int64_t> expected) {
  if (dims.nbDims != static_cast<int32_t>(expected.size())) return false;
  int axis = 0;
  for (int64_t size : expected) {
    if (dims.d[axis++] != size) return false;
  }
  return true;
}

// Whether the window fits in the first input, and a tensor has the pooled size.
inline bool is_pooled(const Settings& settings, const nvinfer1::Dims& x,
                      const nvinfer1::Dims& pooled) {
  if (x.nbDims != 4) return false;
  const Pool2d pool = pool_of(settings, x);
  if (!is_valid(pool)) return false;
  return same(pooled, {pool.n, pool.c, pooled_size(pool, 0), pooled_size(pool, 1)});
}

// X, alpha -> Y.
struct PPool {
  static constexpr const char* kName = "PPool";
  static constexpr int32_t kInputs = 2, kShapeInputs = 0;

  static bool takes_rank(int32_t rank) { return rank == 4; }

  static std::vector<Slot> slots() { return window_slots(); }
  static void check(const Settings& settings) { check_window(settings); }
  static DataType output_type(DataType input) { return input; }

  static DimsExprs shape(const Settings& settings, const DimsExprs* inputs, const DimsExprs*,
                         IExprBuilder& build) {
    return pooled_shape(settings, inputs[0], build);
  }
  static bool fits(const Settings& settings, const PluginTensorDesc* in,
                   const PluginTensorDesc* out) {
    return is_pooled(settings, in[0].dims, in[1].dims) &&
           is_pooled(settings, in[0].dims, out[0].dims);
  }
  static int start(const Settings& settings, const Call& call) {
    const ForwardJob job{call.pool(settings), call.inputs[0], call.inputs[1], call.outputs[0]};
    return ppool_cuda_forward(&job, call.stream);
  }
};

// X, w_region, prelu_slope, w_point, b_point -> Y.
struct PPoolUnit {
  static constexpr const char* kName = "PPoolUnit";
  static constexpr int32_t kInputs = 5, kShapeInputs = 0;

  static bool takes_rank(int32_t rank) { return rank == 4; }

  static std::vector<Slot> slots() { return unit_slots(); }
  static void check(const Settings& settings) {
    check_window(settings);
    check_branch(settings);
  }
  static DataType output_type(DataType input) { return input; }

  static DimsExprs shape(const Settings& settings, const DimsExprs* inputs, const DimsExprs*,
                         IExprBuilder& build) {
    return pooled_shape(settings, inputs[0], build);
  }
  static bool fits(const Settings& settings, const PluginTensorDesc* in,
                   const PluginTensorDesc* out) {
    if (!is_pooled(settings, in[0].dims, out[0].dims)) return false;
    const int64_t c = in[0].dims.d[1];
    for (int i = 2; i < kInputs; ++i) {
      if (!same(in[i].dims, {c})) return false;
    }
    return same(in[1].dims, {c, 1, settings.kernel_shape[0], settings.kernel_shape[1]});
  }
  static int start(const Settings& settings, const Call& call) {
    const void* const* in = call.inputs;
    const SideBranch branch{settings.input_scale, settings.alpha_min, settings.alpha_max};
    const UnitJob job{call.pool(settings), branch, in[0], in[1], in[2], in[3], in[4],
                      call.outputs[0]};
    return ppool_cuda_unit(&job, call.stream);
  }
};

// logits [N, K, h, w], or [N, K, s, s, h, w] of blocks of s x s pixels, and size as a shape input,
// -> uint8 labels.
struct ResizeArgMax {
  static constexpr const char* kName = "ResizeArgMax";
  static constexpr int32_t kInputs = 1, kShapeInputs = 1;

  static bool takes_rank(int32_t rank) { return rank == 4 || rank == 6; }

  static std::vector<Slot> slots() { return {}; }
  static void check(const Settings&) {}
  static DataType output_type(DataType) { return DataType::kUINT8; }

  static DimsExprs shape(const Settings&, const DimsExprs* inputs, const DimsExprs* values,
                         IExprBuilder&) {
    DimsExprs shape = {};
    shape.nbDims = 3;
    shape.d[0] = inputs[0].d[0];
    shape.d[1] = values[0].d[0];
    shape.d[2] = values[0].d[1];
    return shape;
  }
  static bool fits(const Settings&, const PluginTensorDesc* in, const PluginTensorDesc* out) {
    const nvinfer1::Dims& logits = in[0].dims;
    const nvinfer1::Dims& labels = out[0].dims;
    const bool blocks = logits.nbDims == 6 && logits.d[2] == logits.d[3];
    return (logits.nbDims == 4 || blocks) && labels.nbDims == 3 && labels.d[0] == logits.d[0] &&
           logits.d[1] >= 1 && logits.d[1] <= 256;
  }
  static int start(const Settings&, const Call& call) {
    const nvinfer1::Dims& logits = call.input[0].dims;
    const int64_t* from = logits.d;
    const int64_t* to = call.output[0].dims.d;
    const int64_t side = logits.nbDims == 6 ? from[2] : 1;
    const int64_t h = from[logits.nbDims - 2] * side, w = from[logits.nbDims - 1] * side;
    const ResizeArgMaxJob job{from[0],        from[1],      h, w, to[1], to[2], call.dtype(),
                              static_cast<int32_t>(side), call.inputs[0], call.outputs[0]};
    return ppool_cuda_resize_argmax(&job, call.stream);
  }
};

}  // namespace ppool::tensorrt

#endif  // PPOOL_TENSORRT_OPERATORS_H_
