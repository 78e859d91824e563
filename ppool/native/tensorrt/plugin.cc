// The operators of domain "ai.ppool" as TensorRT IPluginV3 plugins, version "1"; links nothing of
// TensorRT. What each takes and gives is in operators.h. No exception crosses to TensorRT.
#include <atomic>
#include <exception>
#include <memory>

#include "operators.h"

#define PPOOL_TENSORRT_ENTRY extern "C" __attribute__((visibility("default")))

namespace ppool::tensorrt {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginFieldCollection;

constexpr const char* kNamespace = "ai.ppool";
constexpr const char* kVersion = "1";
constexpr int32_t kFailed = -1;

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

void log_error(const char* op, const char* message) noexcept {
  try {
    nvinfer1::ILoggerFinder* finder = logger_finder;
    nvinfer1::ILogger* logger = finder == nullptr ? nullptr : finder->findLogger();
    if (logger == nullptr) return;
    const std::string text = std::string("ai.ppool ") + op + ": " + message;
    logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
  } catch (const std::exception&) {
    return;  // there is nobody left to tell
  }
}

// One operator with valid settings; all that TensorRT asks of it.
template <class Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit Plugin(const Settings& settings)
      : settings_(settings),
        fields_(fields_of(Op::slots(), &settings_)),
        collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {
    Op::check(settings);
  }
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    try {
      return new Plugin(settings_);
    } catch (const std::exception& error) {
      log_error(Op::kName, error.what());
      return nullptr;
    }
  }

  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t count, const DataType* inputs,
                             int32_t) const noexcept override {
    if (count != 1) return fail("expected one output");
    outputs[0] = Op::output_type(inputs[0]);
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t count, const DimsExprs* shape_inputs,
                          int32_t shape_count, DimsExprs* outputs, int32_t output_count,
                          IExprBuilder& build) noexcept override {
    if (count < 1 || !Op::takes_rank(inputs[0].nbDims)) {
      return fail("the first input: expected 4 dimensions");
    }
    if (shape_count != Op::kShapeInputs) {
      return fail("size: expected a shape input; its node must carry "
                  "tensorrt_plugin_shape_input_indices, so export the model again");
    }
    if (output_count != 1) return fail("expected one output");
    outputs[0] = Op::shape(settings_, inputs, shape_inputs, build);
    return 0;
  }

  // float32, float16 or bfloat16 in rows, the same for all; labels are uint8.
  bool supportsFormatCombination(int32_t pos, const DynamicPluginTensorDesc* tensors,
                                 int32_t inputs, int32_t) noexcept override {
    const PluginTensorDesc& tensor = tensors[pos].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (pos == 0) {
      return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF ||
             tensor.type == DataType::kBF16;
    }
    const DataType first = tensors[0].desc.type;
    return tensor.type == (pos >= inputs ? Op::output_type(first) : first);
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return 0;
  }

  int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                        int32_t outputs) noexcept override {
    if (inputs < Op::kInputs || outputs != getNbOutputs()) return fail("wrong number of tensors");
    return Op::fits(settings_, in, out) ? 0 : fail("shapes do not fit together");
  }

  int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out,
                  const void* const* inputs, void* const* outputs, void*,
                  cudaStream_t stream) noexcept override {
    const int error = Op::start(settings_, {in, out, inputs, outputs, stream});
    return error == 0 ? 0 : fail(ppool_cuda_error(error));
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  static int32_t fail(const char* message) noexcept {
    log_error(Op::kName, message);
    return kFailed;
  }

  Settings settings_;
  std::vector<nvinfer1::PluginField> fields_;
  PluginFieldCollection collection_;
};

template <class Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator()
      : fields_(fields_of(Op::slots(), nullptr)),
        collection_{static_cast<int32_t>(fields_.size()), fields_.data()} {}

  // Null for attributes that are missing, unknown or out of range; the logger says which.
  nvinfer1::IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    try {
      return new Plugin<Op>(read_settings(Op::slots(), fields));
    } catch (const std::exception& error) {
      log_error(Op::kName, error.what());
      return nullptr;
    }
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  PluginFieldCollection collection_;
};

}  // namespace
}  // namespace ppool::tensorrt

// The entries that IPluginRegistry::loadLibrary and trtexec --dynamicPlugins look for.
PPOOL_TENSORRT_ENTRY nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using namespace ppool::tensorrt;
  try {
    static Creator<PPool> pool;
    static Creator<PPoolUnit> unit;
    static Creator<ResizeArgMax> resize;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&pool, &unit, &resize};
    count = 3;
    return creators;
  } catch (const std::exception&) {
    count = 0;
    return nullptr;
  }
}

PPOOL_TENSORRT_ENTRY void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  ppool::tensorrt::logger_finder = finder;
}
