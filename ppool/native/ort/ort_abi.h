// The entries of ONNX Runtime's C interface that we use, declared by us so that building needs no
// header of theirs. Their table only ever grows at the end, so a slot's number is for good; each
// is checked against the official header where one is installed (tests/native/test_ort_abi.py).
#ifndef PPOOL_ORT_ABI_H_
#define PPOOL_ORT_ABI_H_

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define PPOOL_ORT_CALL __stdcall
#else
#define PPOOL_ORT_CALL
#endif

namespace ppool::ort {

// The version of the table asked for; ONNX Runtime 1.21 is the first to have it.
constexpr uint32_t kApiVersion = 21;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };

enum ElementType : int {
  kFloat = 1,
  kUInt8 = 2,
  kUInt16 = 4,
  kInt64 = 7,
  kFloat16 = 10,
  kBFloat16 = 16,
};

enum Characteristic : int { kRequired = 0 };

enum MemoryType : int { kCpuInput = -2, kDefaultMemory = 0 };

enum AttributeType : int { kInt = 1, kInts = 2 };

// Known to ONNX Runtime alone.
struct Status;
struct SessionOptions;
struct Value;
struct KernelInfo;
struct KernelContext;
struct ShapeContext;
struct OpAttribute;
struct CustomOpDomain;
struct TensorInfo;
struct CustomOp;

// `count` slots of the table that we do not use.
template <size_t count>
struct Unused {
  void (*slots[count])();
};

struct Api {
  Status*(PPOOL_ORT_CALL* CreateStatus)(ErrorCode, const char* message);
  Unused<1> unused_1;
  const char*(PPOOL_ORT_CALL* GetErrorMessage)(const Status*);
  Unused<23> unused_3;
  Status*(PPOOL_ORT_CALL* CreateCustomOpDomain)(const char* name, CustomOpDomain**);
  Status*(PPOOL_ORT_CALL* CustomOpDomain_Add)(CustomOpDomain*, const CustomOp*);
  Status*(PPOOL_ORT_CALL* AddCustomOpDomain)(SessionOptions*, CustomOpDomain*);
  Unused<22> unused_29;
  Status*(PPOOL_ORT_CALL* GetTensorMutableData)(Value*, void** data);
  Unused<5> unused_52;
  Status*(PPOOL_ORT_CALL* CreateTensorTypeAndShapeInfo)(TensorInfo**);
  Status*(PPOOL_ORT_CALL* SetTensorElementType)(TensorInfo*, ElementType);
  Status*(PPOOL_ORT_CALL* SetDimensions)(TensorInfo*, const int64_t* dims, size_t rank);
  Status*(PPOOL_ORT_CALL* GetTensorElementType)(const TensorInfo*, ElementType*);
  Status*(PPOOL_ORT_CALL* GetDimensionsCount)(const TensorInfo*, size_t* rank);
  Status*(PPOOL_ORT_CALL* GetDimensions)(const TensorInfo*, int64_t* dims, size_t rank);
  Status*(PPOOL_ORT_CALL* GetSymbolicDimensions)(const TensorInfo*, const char** names,
                                                 size_t rank);
  Unused<1> unused_64;
  Status*(PPOOL_ORT_CALL* GetTensorTypeAndShape)(const Value*, TensorInfo**);
  Unused<19> unused_66;
  Status*(PPOOL_ORT_CALL* KernelInfoGetAttribute_float)(const KernelInfo*, const char* name,
                                                        float*);
  Status*(PPOOL_ORT_CALL* KernelInfoGetAttribute_int64)(const KernelInfo*, const char* name,
                                                        int64_t*);
  Unused<3> unused_87;
  Status*(PPOOL_ORT_CALL* KernelContext_GetInput)(const KernelContext*, size_t, const Value**);
  Status*(PPOOL_ORT_CALL* KernelContext_GetOutput)(KernelContext*, size_t, const int64_t* dims,
                                                   size_t rank, Value**);
  Unused<1> unused_92;
  void(PPOOL_ORT_CALL* ReleaseStatus)(Status*);
  Unused<5> unused_94;
  void(PPOOL_ORT_CALL* ReleaseTensorTypeAndShapeInfo)(TensorInfo*);
  Unused<63> unused_100;
  Status*(PPOOL_ORT_CALL* KernelInfoGetAttributeArray_int64)(const KernelInfo*, const char* name,
                                                             int64_t*, size_t* size);
  Unused<29> unused_164;
  Status*(PPOOL_ORT_CALL* KernelContext_GetGPUComputeStream)(const KernelContext*, void** stream);
  Unused<74> unused_194;
  Status*(PPOOL_ORT_CALL* ShapeInferContext_GetInputTypeShape)(const ShapeContext*, size_t,
                                                               TensorInfo**);
  Status*(PPOOL_ORT_CALL* ShapeInferContext_GetAttribute)(const ShapeContext*, const char* name,
                                                          const OpAttribute**);
  Status*(PPOOL_ORT_CALL* ShapeInferContext_SetOutputTypeShape)(const ShapeContext*, size_t,
                                                                const TensorInfo*);
  Status*(PPOOL_ORT_CALL* SetSymbolicDimensions)(TensorInfo*, const char** names, size_t rank);
  Status*(PPOOL_ORT_CALL* ReadOpAttr)(const OpAttribute*, AttributeType, void* data, size_t size,
                                      size_t* needed);
  Unused<1> unused_273;
  Status*(PPOOL_ORT_CALL* KernelContext_ParallelFor)(const KernelContext*,
                                                     void (*part)(void* data, size_t index),
                                                     size_t parts, size_t batches, void* data);
};

struct ApiBase {
  const Api*(PPOOL_ORT_CALL* GetApi)(uint32_t version);
  const char*(PPOOL_ORT_CALL* GetVersionString)();
};

// What an operator tells of itself. Entries left null are optional to ONNX Runtime.
struct CustomOp {
  uint32_t version;
  Unused<1> create_kernel;
  const char*(PPOOL_ORT_CALL* GetName)(const CustomOp*);
  const char*(PPOOL_ORT_CALL* GetExecutionProviderType)(const CustomOp*);
  ElementType(PPOOL_ORT_CALL* GetInputType)(const CustomOp*, size_t);
  size_t(PPOOL_ORT_CALL* GetInputTypeCount)(const CustomOp*);
  ElementType(PPOOL_ORT_CALL* GetOutputType)(const CustomOp*, size_t);
  size_t(PPOOL_ORT_CALL* GetOutputTypeCount)(const CustomOp*);
  Unused<1> kernel_compute;
  void(PPOOL_ORT_CALL* KernelDestroy)(void* kernel);
  Characteristic(PPOOL_ORT_CALL* GetInputCharacteristic)(const CustomOp*, size_t);
  Characteristic(PPOOL_ORT_CALL* GetOutputCharacteristic)(const CustomOp*, size_t);
  MemoryType(PPOOL_ORT_CALL* GetInputMemoryType)(const CustomOp*, size_t);
  Unused<4> variadic;
  Status*(PPOOL_ORT_CALL* CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*,
                                          void** kernel);
  Status*(PPOOL_ORT_CALL* KernelComputeV2)(void* kernel, KernelContext*);
  Status*(PPOOL_ORT_CALL* InferOutputShapeFn)(const CustomOp*, ShapeContext*);
  int(PPOOL_ORT_CALL* GetStartVersion)(const CustomOp*);
  int(PPOOL_ORT_CALL* GetEndVersion)(const CustomOp*);
  Unused<4> aliasing;
};

}  // namespace ppool::ort

#endif  // PPOOL_ORT_ABI_H_
