// What a plugin meets of TensorRT: expressions of sizes, the logger and the registry.
#ifndef PPOOL_TESTS_TENSORRT_MOCK_H_
#define PPOOL_TESTS_TENSORRT_MOCK_H_

#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

namespace mock {

using namespace nvinfer1;

[[noreturn]] inline void stop(const std::string& why) {
  std::fprintf(stderr, "host: %s\n", why.c_str());
  std::exit(1);
}

inline void expect(bool condition, const char* what) {
  if (!condition) stop(std::string("expected ") + what);
}

// Sizes known at once: an expression is its value.
class Expression final : public IDimensionExpr, private apiv::VDimensionExpr {
 public:
  explicit Expression(int64_t value) : value_(value) { mImpl = this; }
  bool isConstant() const override { return true; }
  int64_t getConstantValue() const override { return value_; }
  bool isSizeTensor() const override { return false; }
  int64_t value() const { return value_; }

 private:
  int64_t value_;
};

class Builder final : public IExprBuilder, private apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }

  const IDimensionExpr* constant(int64_t value) override { return &made_.emplace_back(value); }

  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& first,
                                  const IDimensionExpr& second) override {
    const int64_t a = static_cast<const Expression&>(first).value();
    const int64_t b = static_cast<const Expression&>(second).value();
    switch (op) {
      case DimensionOperation::kSUM:
        return constant(a + b);
      case DimensionOperation::kPROD:
        return constant(a * b);
      case DimensionOperation::kLESS:
        return constant(a < b);
      case DimensionOperation::kFLOOR_DIV:
        return constant(a / b - (a % b != 0 && (a < 0) != (b < 0)));
      default:
        stop("an operation that the plugins do not use");
    }
  }

  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    stop("no output's size depends on data");
  }

 private:
  std::deque<Expression> made_;
};

struct Logger final : ILogger {
  void log(Severity, const char* message) noexcept override { std::printf("log %s\n", message); }
};

struct Finder final : ILoggerFinder {
  Logger logger;
  ILogger* findLogger() override { return &logger; }
};

// Without `override`: TensorRT 10 and 11 differ in what the registry has.
struct Registry final : IPluginRegistry {
  bool registerCreator(IPluginCreatorInterface& creator, const char* space) noexcept {
    const auto& one = static_cast<IPluginCreatorV3One&>(creator);
    names.push_back(std::string(space) + " " + one.getPluginName());
    return true;
  }
#if NV_TENSORRT_MAJOR < 11
  bool registerCreator(IPluginCreator&, const char*) noexcept { return false; }
  IPluginCreator* const* getPluginCreatorList(int32_t*) const noexcept { return nullptr; }
  IPluginCreator* getPluginCreator(const char*, const char*, const char*) noexcept { return {}; }
  bool deregisterCreator(const IPluginCreator&) noexcept { return false; }
#endif
  void setErrorRecorder(IErrorRecorder*) noexcept {}
  IErrorRecorder* getErrorRecorder() const noexcept { return nullptr; }
  bool isParentSearchEnabled() const { return false; }
  void setParentSearchEnabled(bool) {}
  void* loadLibrary(const char*) noexcept { return nullptr; }
  void deregisterLibrary(void*) noexcept {}
  IPluginCreatorInterface* const* getAllCreators(int32_t*) const noexcept { return nullptr; }
  IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t*) noexcept { return nullptr; }
  IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept { return {}; }
  bool deregisterCreator(const IPluginCreatorInterface&) noexcept { return false; }
  IPluginResource* acquirePluginResource(const char*, IPluginResource*) noexcept { return {}; }
  int32_t releasePluginResource(const char*) noexcept { return 0; }

  std::vector<std::string> names;
};

inline Registry& registry() {
  static Registry only;
  return only;
}

}  // namespace mock

#endif  // PPOOL_TESTS_TENSORRT_MOCK_H_
