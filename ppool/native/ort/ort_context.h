// C++ manners over ONNX Runtime's C interface: owned objects, and exceptions up to the seam.
#ifndef PPOOL_ORT_CONTEXT_H_
#define PPOOL_ORT_CONTEXT_H_

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ort_abi.h"

namespace ppool::ort {

using Shape = std::vector<int64_t>;

// An error status of ONNX Runtime's own on its way back to it.
struct Failure {
  Status* status;
};

inline void check(Status* status) {
  if (status != nullptr) throw Failure{status};
}

// Runs `body`; nothing it throws leaves here but as a status.
template <class Body>
Status* guarded(const Api* api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::invalid_argument& error) {
    return api->CreateStatus(kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return api->CreateStatus(kFail, error.what());
  }
}

inline std::string to_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

[[noreturn]] inline void refuse(const std::string& what, const std::string& expected,
                                const std::string& got) {
  throw std::invalid_argument("ai.ppool: " + what + ": expected " + expected + ", got " + got);
}

inline void expect_shape(const char* what, const Shape& expected, const Shape& got) {
  if (got != expected) refuse(what, "shape " + to_text(expected), to_text(got));
}

using OwnedInfo = std::unique_ptr<TensorInfo, void(PPOOL_ORT_CALL*)(TensorInfo*)>;

inline Shape shape_of(const Api* api, const TensorInfo* info) {
  size_t rank = 0;
  check(api->GetDimensionsCount(info, &rank));
  Shape shape(rank);
  check(api->GetDimensions(info, shape.data(), rank));
  return shape;
}

// A tensor to read: its elements, which may be null where there are none, and its shape.
struct Input {
  const void* data;
  Shape shape;
};

inline Input read_input(const Api* api, const KernelContext* context, size_t index) {
  const Value* value = nullptr;
  check(api->KernelContext_GetInput(context, index, &value));
  TensorInfo* raw = nullptr;
  check(api->GetTensorTypeAndShape(value, &raw));
  const OwnedInfo info(raw, api->ReleaseTensorTypeAndShapeInfo);
  void* data = nullptr;
  // There is no reading twin of this entry in the versions we support.
  check(api->GetTensorMutableData(const_cast<Value*>(value), &data));
  return {data, shape_of(api, raw)};
}

// The elements of the output, to write.
inline void* make_output(const Api* api, KernelContext* context, const Shape& shape) {
  Value* value = nullptr;
  check(api->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api->GetTensorMutableData(value, &data));
  return data;
}

inline Shape expect_ints(const char* name, size_t count, Shape values) {
  if (values.size() != count) refuse(name, std::to_string(count) + " ints", to_text(values));
  return values;
}

// The attributes of a node whose kernel is being made.
struct NodeAttributes {
  const Api* api;
  const KernelInfo* info;

  Shape read_ints(const char* name, size_t count) const {
    size_t size = 0;
    check_found(name, api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &size));
    Shape values(size);
    check_found(name, api->KernelInfoGetAttributeArray_int64(info, name, values.data(), &size));
    return expect_ints(name, count, std::move(values));
  }

  int64_t read_int(const char* name) const {
    int64_t value = 0;
    check_found(name, api->KernelInfoGetAttribute_int64(info, name, &value));
    return value;
  }

  float read_float(const char* name) const {
    float value = 0;
    check_found(name, api->KernelInfoGetAttribute_float(info, name, &value));
    return value;
  }

 private:
  // ONNX Runtime's own message leaves out which attribute it is about.
  void check_found(const char* name, Status* status) const {
    if (status == nullptr) return;
    const std::unique_ptr<Status, void(PPOOL_ORT_CALL*)(Status*)> owned(status,
                                                                        api->ReleaseStatus);
    throw std::invalid_argument("ai.ppool: attribute " + std::string(name) + ": " +
                                api->GetErrorMessage(status));
  }
};

// The attributes of a node whose output shapes are being inferred.
struct InferAttributes {
  const Api* api;
  const ShapeContext* context;

  Shape read_ints(const char* name, size_t count) const {
    Shape values(count);
    const size_t bytes = count * sizeof(int64_t);
    values.resize(read(name, kInts, values.data(), bytes) / sizeof(int64_t));
    return expect_ints(name, count, std::move(values));
  }

  int64_t read_int(const char* name) const {
    int64_t value = 0;
    read(name, kInt, &value, sizeof(value));
    return value;
  }

 private:
  size_t read(const char* name, AttributeType type, void* data, size_t bytes) const {
    const OpAttribute* attribute = nullptr;
    check(api->ShapeInferContext_GetAttribute(context, name, &attribute));
    size_t needed = 0;
    check(api->ReadOpAttr(attribute, type, data, bytes, &needed));
    return needed;
  }
};

// A shape while the model is being analysed: where a size is -1 its name may be known.
struct SymbolicShape {
  Shape sizes;
  std::vector<std::string> names;
};

// An input's type and shape; ONNX Runtime keeps the object.
inline const TensorInfo* input_info(const Api* api, const ShapeContext* context, size_t index) {
  TensorInfo* info = nullptr;
  check(api->ShapeInferContext_GetInputTypeShape(context, index, &info));
  return info;
}

inline SymbolicShape symbolic_shape(const Api* api, const TensorInfo* info) {
  SymbolicShape shape{shape_of(api, info), {}};
  std::vector<const char*> names(shape.sizes.size());
  check(api->GetSymbolicDimensions(info, names.data(), names.size()));
  for (const char* name : names) shape.names.emplace_back(name == nullptr ? "" : name);
  return shape;
}

inline ElementType element_of(const Api* api, const TensorInfo* info) {
  ElementType element = kFloat;
  check(api->GetTensorElementType(info, &element));
  return element;
}

inline void declare_output(const Api* api, ShapeContext* context, ElementType element,
                           const SymbolicShape& shape) {
  TensorInfo* raw = nullptr;
  check(api->CreateTensorTypeAndShapeInfo(&raw));
  const OwnedInfo info(raw, api->ReleaseTensorTypeAndShapeInfo);
  std::vector<const char*> names;
  for (const std::string& name : shape.names) names.push_back(name.c_str());
  check(api->SetTensorElementType(raw, element));
  check(api->SetDimensions(raw, shape.sizes.data(), shape.sizes.size()));
  check(api->SetSymbolicDimensions(raw, names.data(), names.size()));
  check(api->ShapeInferContext_SetOutputTypeShape(context, 0, raw));
}

}  // namespace ppool::ort

#endif  // PPOOL_ORT_CONTEXT_H_
