// Stands in for TensorRT: loads a plugin library and drives one plugin from creation to results.
//
//   host LIBRARY run OP DTYPE EIGHT-WINDOW-NUMBERS CEIL SIGNED OUTPUTS N C H W
//   host LIBRARY refuse        creates plugins from wrong attributes; prints what the logger got
//   host LIBRARY registered    prints what registered itself when the library was loaded
//
// Inputs follow a formula that the test knows: element i of tensor k is ((37 i + 11 k) % 101) / 101.
// For ResizeArgMax the first two window numbers are the size of the labels.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "ppool_storage.h"
#include "tensorrt_mock.h"

namespace {

using namespace mock;

struct Library {
  void* handle;
  IPluginCreatorInterface* const* creators;
  int32_t count = 0;

  explicit Library(const char* path) : handle(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (handle == nullptr) stop(dlerror());
    using Creators = IPluginCreatorInterface* const*(int32_t&);
    const auto get = reinterpret_cast<Creators*>(dlsym(handle, "getCreators"));
    const auto set =
        reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(handle, "setLoggerFinder"));
    expect(get != nullptr && set != nullptr, "getCreators and setLoggerFinder");
    static Finder finder;
    set(&finder);
    creators = get(count);
  }

  IPluginCreatorV3One& creator(const std::string& name) const {
    for (int32_t i = 0; i < count; ++i) {
      auto& one = static_cast<IPluginCreatorV3One&>(*creators[i]);
      if (name == one.getPluginName()) {
        expect(std::string("ai.ppool") == one.getPluginNamespace(), "namespace ai.ppool");
        expect(std::string("1") == one.getPluginVersion(), "version 1");
        return one;
      }
    }
    stop("no creator of " + name);
  }
};

// The attributes of a node as TensorRT's parser hands them over.
struct Node {
  int32_t kernel[2], strides[2], pads[4], dilations[2], ceil_mode, is_signed, outputs;
  float scale = 100, lowest = 0.25f, highest = 35;
  std::vector<PluginField> fields = {};

  // Those that the creator asks for, which is all that the parser reads.
  PluginFieldCollection collect(IPluginCreatorV3One& creator) {
    const std::vector<PluginField> all = {
        {"kernel_shape", kernel, PluginFieldType::kINT32, 2},
        {"strides", strides, PluginFieldType::kINT32, 2},
        {"pads", pads, PluginFieldType::kINT32, 4},
        {"dilations", dilations, PluginFieldType::kINT32, 2},
        {"ceil_mode", &ceil_mode, PluginFieldType::kINT32, 1},
        {"signed", &is_signed, PluginFieldType::kINT32, 1},
        {"input_scale", &scale, PluginFieldType::kFLOAT32, 1},
        {"alpha_min", &lowest, PluginFieldType::kFLOAT32, 1},
        {"alpha_max", &highest, PluginFieldType::kFLOAT32, 1},
        {"num_outputs", &outputs, PluginFieldType::kINT32, 1},
    };
    const PluginFieldCollection& wanted = *creator.getFieldNames();
    for (int32_t i = 0; i < wanted.nbFields; ++i) {
      for (const PluginField& field : all) {
        if (std::strcmp(field.name, wanted.fields[i].name) == 0) fields.push_back(field);
      }
    }
    return {static_cast<int32_t>(fields.size()), fields.data()};
  }
};

Node node_of(char** numbers) {
  const auto at = [&](int i) { return std::atoi(numbers[i]); };
  return {{at(0), at(1)}, {at(2), at(3)}, {at(4), at(5), at(4), at(5)}, {at(6), at(7)},
          at(8), at(9), at(10)};
}

template <class Interface>
Interface* capability(IPluginV3* plugin, PluginCapabilityType type) {
  return static_cast<Interface*>(plugin->getCapabilityInterface(type));
}

// A dense tensor of the host.
struct Tensor {
  PluginTensorDesc desc;
  std::vector<char> bytes;

  static size_t width(DataType type) {
    return type == DataType::kUINT8 ? 1 : (type == DataType::kFLOAT ? 4 : 2);
  }

  Tensor(std::vector<int64_t> sizes, DataType type) : desc{} {
    size_t count = 1;
    desc.type = type;
    desc.format = TensorFormat::kLINEAR;
    desc.dims.nbDims = static_cast<int32_t>(sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      desc.dims.d[i] = sizes[i];
      count *= static_cast<size_t>(sizes[i]);
    }
    bytes.resize(count * width(type));
  }

  size_t count() const { return bytes.size() / width(desc.type); }

  void set(size_t i, float value) {
    if (desc.type == DataType::kFLOAT) reinterpret_cast<float*>(bytes.data())[i] = value;
    if (desc.type == DataType::kHALF) {
      ppool::narrow(value, &reinterpret_cast<ppool::Half*>(bytes.data())[i]);
    }
    if (desc.type == DataType::kBF16) {
      ppool::narrow(value, &reinterpret_cast<ppool::BFloat16*>(bytes.data())[i]);
    }
  }

  float get(size_t i) const {
    switch (desc.type) {
      case DataType::kFLOAT:
        return reinterpret_cast<const float*>(bytes.data())[i];
      case DataType::kHALF:
        return ppool::widen(reinterpret_cast<const ppool::Half*>(bytes.data())[i]);
      case DataType::kBF16:
        return ppool::widen(reinterpret_cast<const ppool::BFloat16*>(bytes.data())[i]);
      default:
        return static_cast<float>(static_cast<unsigned char>(bytes[i]));
    }
  }
};

DimsExprs expressions(const Dims& dims, Builder& builder) {
  DimsExprs result = {};
  result.nbDims = dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) result.d[i] = builder.constant(dims.d[i]);
  return result;
}

// The sizes of the inputs; alpha's, of PPool, are those that the plugin will infer for Y.
std::vector<std::vector<int64_t>> input_sizes(const std::string& op, const Node& node,
                                              const int64_t* x, const std::vector<int64_t>& y) {
  const std::vector<int64_t> first(x, x + 4);
  if (op == "PPool") return {first, y};
  if (op == "ResizeArgMax") return {first};
  const std::vector<int64_t> one = {x[1]};
  return {first, {x[1], 1, node.kernel[0], node.kernel[1]}, one, one, one};
}

std::vector<int64_t> infer(IPluginV3OneBuild& build, const std::string& op, const Node& node,
                           const int64_t* x) {
  Builder builder;
  Dims dims = {};
  dims.nbDims = 4;
  for (int i = 0; i < 4; ++i) dims.d[i] = x[i];
  DimsExprs input = expressions(dims, builder), size = {}, outputs[2] = {};
  size.nbDims = 2;
  size.d[0] = builder.constant(node.kernel[0]);
  size.d[1] = builder.constant(node.kernel[1]);
  const int32_t count = build.getNbOutputs();
  const int32_t shapes = op == "ResizeArgMax" ? 1 : 0;
  expect(build.getOutputShapes(&input, 1, &size, shapes, outputs, count, builder) == 0, "shapes");
  std::vector<int64_t> sizes;
  for (int32_t i = 0; i < outputs[0].nbDims; ++i) {
    sizes.push_back(static_cast<const Expression&>(*outputs[count - 1].d[i]).value());
  }
  return sizes;
}

void check_formats(IPluginV3OneBuild& build, const std::vector<Tensor>& tensors, int32_t inputs) {
  std::vector<DynamicPluginTensorDesc> described(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) described[i].desc = tensors[i].desc;
  const int32_t outputs = static_cast<int32_t>(tensors.size()) - inputs;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int32_t pos = static_cast<int32_t>(i);
    const auto supported = [&] {
      return build.supportsFormatCombination(pos, described.data(), inputs, outputs);
    };
    expect(supported(), "this combination of types to be supported");
    described[i].desc.format = TensorFormat::kCHW32;
    expect(!supported(), "only rows to be supported");
    described[i].desc.format = TensorFormat::kLINEAR;
    described[i].desc.type = DataType::kINT8;
    expect(!supported(), "no int8 to be supported");
    described[i].desc.type = tensors[i].desc.type;
  }
}

// Created, stored, made again, copied and attached, as between a builder and an engine.
IPluginV3* round_trip(IPluginCreatorV3One& creator, Node node) {
  const PluginFieldCollection fields = node.collect(creator);
  IPluginV3* built = creator.createPlugin("layer", &fields, TensorRTPhase::kBUILD);
  expect(built != nullptr, "a plugin");
  auto* runtime = capability<IPluginV3OneRuntime>(built, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection* stored = runtime->getFieldsToSerialize();
  IPluginV3* again = creator.createPlugin("layer", stored, TensorRTPhase::kRUNTIME);
  expect(again != nullptr, "a plugin of stored fields");
  delete built;
  IPluginV3* copy = again->clone();
  delete again;
  runtime = capability<IPluginV3OneRuntime>(copy, PluginCapabilityType::kRUNTIME);
  IPluginV3* attached = runtime->attachToContext(nullptr);
  delete copy;
  return attached;
}

void run(const Library& library, const std::string& op, const std::string& dtype, char** numbers) {
  const Node node = node_of(numbers);
  int64_t x[4];
  for (int i = 0; i < 4; ++i) x[i] = std::atoll(numbers[11 + i]);
  const DataType type = dtype == "float32"   ? DataType::kFLOAT
                        : dtype == "float16" ? DataType::kHALF
                                             : DataType::kBF16;
  IPluginV3* plugin = round_trip(library.creator(op), node);
  auto& build = *capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  auto& runtime = *capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  const std::vector<int64_t> y = infer(build, op, node, x);

  std::vector<Tensor> tensors;
  for (const auto& sizes : input_sizes(op, node, x, y)) tensors.emplace_back(sizes, type);
  const int32_t inputs = static_cast<int32_t>(tensors.size()), outputs = build.getNbOutputs();
  DataType output_types[2];
  expect(build.getOutputDataTypes(output_types, outputs, &type, 1) == 0, "output types");
  for (int32_t i = 0; i < outputs; ++i) tensors.emplace_back(y, output_types[i]);
  check_formats(build, tensors, inputs);

  std::vector<PluginTensorDesc> descriptions;
  std::vector<void*> addresses;
  for (size_t k = 0; k < tensors.size(); ++k) {
    for (size_t i = 0; static_cast<int32_t>(k) < inputs && i < tensors[k].count(); ++i) {
      tensors[k].set(i, static_cast<float>((37 * i + 11 * k) % 101) / 101.0f);
    }
    descriptions.push_back(tensors[k].desc);
    addresses.push_back(tensors[k].bytes.data());
  }
  const PluginTensorDesc* out = descriptions.data() + inputs;
  expect(runtime.onShapeChange(descriptions.data(), inputs, out, outputs) == 0, "shapes to fit");
  const int32_t status = runtime.enqueue(descriptions.data(), out, addresses.data(),
                                         addresses.data() + inputs, nullptr, nullptr);
  expect(status == 0, "enqueue to succeed");
  for (size_t k = static_cast<size_t>(inputs); k < tensors.size(); ++k) {
    std::printf("shape");
    for (int64_t size : y) std::printf(" %lld", static_cast<long long>(size));
    std::printf("\nvalues");
    for (size_t i = 0; i < tensors[k].count(); ++i) {
      std::printf(" %.9g", static_cast<double>(tensors[k].get(i)));
    }
    std::printf("\n");
  }
  descriptions[0].dims.d[2] += 64;
  expect(runtime.onShapeChange(descriptions.data(), inputs, out, outputs) != 0 ||
             op == "ResizeArgMax",
         "sizes that do not fit to be refused");
  delete plugin;
}

void refuse(const Library& library) {
  IPluginCreatorV3One& creator = library.creator("PPool");
  const auto refused = [&](Node node, bool unknown, bool missing) {
    PluginFieldCollection fields = node.collect(creator);
    if (unknown) node.fields[0].name = "kernel";
    if (missing) --fields.nbFields;
    return creator.createPlugin("layer", &fields, TensorRTPhase::kBUILD) == nullptr;
  };
  const Node good = {{2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, 0, 0, 1};
  Node bad = good;
  bad.pads[0] = bad.pads[2] = 2;
  expect(!refused(good, false, false), "a good node");
  expect(refused(good, true, false), "an unknown attribute to be refused");
  expect(refused(good, false, true), "a missing attribute to be refused");
  expect(refused(bad, false, false), "bad padding to be refused");
}

}  // namespace

extern "C" __attribute__((visibility("default"))) IPluginRegistry* getPluginRegistry() noexcept {
  return &registry();
}

int main(int count, char** arguments) {
  if (count < 3) stop("usage: host LIBRARY run|refuse|registered ...");
  const Library library(arguments[1]);
  const std::string what = arguments[2];
  if (what == "run" && count == 20) {
    run(library, arguments[3], arguments[4], arguments + 5);
  } else if (what == "refuse") {
    refuse(library);
  } else if (what == "registered") {
    for (const std::string& name : registry().names) std::printf("%s\n", name.c_str());
  } else {
    stop("unknown command");
  }
}
