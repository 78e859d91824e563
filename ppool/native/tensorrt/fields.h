// A node's attributes as TensorRT passes and stores them: read with every check, written back.
#ifndef PPOOL_TENSORRT_FIELDS_H_
#define PPOOL_TENSORRT_FIELDS_H_

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../ppool_params.h"

namespace ppool::tensorrt {

// The attributes of all operators; each uses those that its slots name.
struct Settings {
  int32_t kernel_shape[2], strides[2], pads[4], dilations[2];
  int32_t ceil_mode, is_signed, num_outputs;
  float input_scale, alpha_min, alpha_max;
};

// Where an attribute lies in Settings. ONNX ints arrive as 32-bit ones.
struct Slot {
  const char* name;
  nvinfer1::PluginFieldType type;
  int32_t length;
  size_t offset;

  size_t bytes() const { return sizeof(int32_t) * static_cast<size_t>(length); }
};
static_assert(sizeof(int32_t) == sizeof(float), "all attributes are made of 32-bit values");

constexpr auto kInt = nvinfer1::PluginFieldType::kINT32;
constexpr auto kFloat = nvinfer1::PluginFieldType::kFLOAT32;

inline std::vector<Slot> window_slots() {
  return {
      {"kernel_shape", kInt, 2, offsetof(Settings, kernel_shape)},
      {"strides", kInt, 2, offsetof(Settings, strides)},
      {"pads", kInt, 4, offsetof(Settings, pads)},
      {"dilations", kInt, 2, offsetof(Settings, dilations)},
      {"ceil_mode", kInt, 1, offsetof(Settings, ceil_mode)},
      {"signed", kInt, 1, offsetof(Settings, is_signed)},
  };
}

inline std::vector<Slot> unit_slots() {
  std::vector<Slot> slots = window_slots();
  slots.push_back({"input_scale", kFloat, 1, offsetof(Settings, input_scale)});
  slots.push_back({"alpha_min", kFloat, 1, offsetof(Settings, alpha_min)});
  slots.push_back({"alpha_max", kFloat, 1, offsetof(Settings, alpha_max)});
  slots.push_back({"num_outputs", kInt, 1, offsetof(Settings, num_outputs)});
  return slots;
}

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

// The window over an input of these sizes.
inline Pool2d pool_of(const Settings& settings, const nvinfer1::Dims& dims) {
  Pool2d pool = {};
  pool.n = dims.d[0];
  pool.c = dims.d[1];
  pool.h = dims.d[2];
  pool.w = dims.d[3];
  for (int axis = 0; axis < 2; ++axis) {
    pool.kernel[axis] = settings.kernel_shape[axis];
    pool.stride[axis] = settings.strides[axis];
    pool.padding[axis] = settings.pads[axis];
    pool.dilation[axis] = settings.dilations[axis];
  }
  pool.ceil_mode = settings.ceil_mode != 0;
  pool.is_signed = settings.is_signed != 0;
  return pool;
}

inline void check_window(const Settings& settings) {
  for (int axis = 0; axis < 2; ++axis) {
    const int32_t kernel = settings.kernel_shape[axis], pad = settings.pads[axis];
    require(kernel >= 1, "kernel_shape: expected at least 1, got " + std::to_string(kernel));
    require(settings.strides[axis] >= 1, "strides: expected at least 1");
    require(settings.dilations[axis] >= 1, "dilations: expected at least 1");
    require(pad >= 0 && 2 * pad <= kernel, "pads: expected 0 to half of kernel_shape");
    require(pad == settings.pads[axis + 2], "pads: expected the same at both ends of an axis");
  }
}

inline void check_branch(const Settings& settings) {
  require(settings.alpha_min <= settings.alpha_max, "alpha_min: expected at most alpha_max");
  require(settings.num_outputs == 1, "num_outputs: expected 1");
}

// Reads every attribute that the slots name, and accepts no other.
inline Settings read_settings(const std::vector<Slot>& slots,
                              const nvinfer1::PluginFieldCollection* fields) {
  Settings settings = {};
  std::vector<bool> found(slots.size(), false);
  for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
    const nvinfer1::PluginField& field = fields->fields[i];
    size_t index = 0;
    while (index < slots.size() && std::strcmp(slots[index].name, field.name) != 0) ++index;
    require(index < slots.size(), std::string("unknown attribute ") + field.name);
    const Slot& slot = slots[index];
    require(field.type == slot.type && field.length == slot.length && field.data != nullptr,
            std::string(field.name) + ": expected " + std::to_string(slot.length) +
                (slot.type == kInt ? " ints" : " floats"));
    std::memcpy(reinterpret_cast<char*>(&settings) + slot.offset, field.data, slot.bytes());
    found[index] = true;
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    require(found[i], std::string(slots[i].name) + ": missing; export the model again");
  }
  return settings;
}

// The attributes as fields; with settings their values, without only names and types.
inline std::vector<nvinfer1::PluginField> fields_of(const std::vector<Slot>& slots,
                                                    const Settings* settings) {
  std::vector<nvinfer1::PluginField> fields;
  for (const Slot& slot : slots) {
    const char* base = reinterpret_cast<const char*>(settings);
    fields.emplace_back(slot.name, settings == nullptr ? nullptr : base + slot.offset, slot.type,
                        slot.length);
  }
  return fields;
}

}  // namespace ppool::tensorrt

#endif  // PPOOL_TENSORRT_FIELDS_H_
