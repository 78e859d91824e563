// Registers the plugins when the library is loaded by dlopen alone, as ONNX Runtime's TensorRT
// provider and ctypes do. REGISTER_TENSORRT_PLUGIN would leave out the namespace that the nodes ask
// for. The registry's interface differs between major versions: build this with the headers of the
// TensorRT that will load it.
#include <NvInferRuntime.h>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace {

struct Registrar {
  Registrar() {
    int32_t count = 0;
    nvinfer1::IPluginCreatorInterface* const* creators = getCreators(count);
    for (int32_t i = 0; i < count; ++i) getPluginRegistry()->registerCreator(*creators[i], "ai.ppool");
  }
} registrar;

}  // namespace
