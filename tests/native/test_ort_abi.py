"""Our declarations of ONNX Runtime's C interface against the official header, where installed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import ppool

ABI = Path(ppool.__file__).parent / "native" / "ort" / "ort_abi.h"
# Where the official header is: named, as in CI, or from Debian's libonnxruntime-dev.
NAMED = os.environ.get("ONNXRUNTIME_INCLUDE_DIR")
FOLDERS = [Path(NAMED)] if NAMED else [Path("/usr/include/onnxruntime")]

CONSTANTS = {
    "kFail": "ORT_FAIL",
    "kInvalidArgument": "ORT_INVALID_ARGUMENT",
    "kFloat": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT",
    "kUInt8": "ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8",
    "kUInt16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16",
    "kInt64": "ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64",
    "kFloat16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16",
    "kBFloat16": "ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16",
    "kRequired": "INPUT_OUTPUT_REQUIRED",
    "kCpuInput": "OrtMemTypeCPUInput",
    "kDefaultMemory": "OrtMemTypeDefault",
    "kInt": "ORT_OP_ATTR_INT",
    "kInts": "ORT_OP_ATTR_INTS",
}


def entries_of(struct: str) -> list[str]:
    """The named function pointers that our header declares in a struct."""
    body = re.search(rf"struct {struct} {{(.*?)\n}};", ABI.read_text(encoding="utf-8"), re.DOTALL)
    assert body is not None
    return re.findall(r"PPOOL_ORT_CALL\s*\*\s*(\w+)\)", body[1])


def test_every_entry_we_call_is_where_the_official_header_has_it(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    folder = next((f for f in FOLDERS if (f / "onnxruntime_c_api.h").is_file()), None)
    if compiler is None or folder is None:
        assert not NAMED, f"ONNXRUNTIME_INCLUDE_DIR: no onnxruntime_c_api.h in {NAMED}"
        pytest.skip("needs a C++ compiler and onnxruntime_c_api.h (Debian: libonnxruntime-dev)")
    structs = {"Api": "OrtApi", "ApiBase": "OrtApiBase", "CustomOp": "OrtCustomOp"}
    claims = [
        f"offsetof(ppool::ort::{ours}, {entry}) == offsetof({theirs}, {entry})"
        for ours, theirs in structs.items()
        for entry in entries_of(ours)
    ]
    claims += [f"int(ppool::ort::{ours}) == int({theirs})" for ours, theirs in CONSTANTS.items()]
    claims.append("sizeof(ppool::ort::CustomOp) <= sizeof(OrtCustomOp)")
    assert len(claims) > 50
    source = tmp_path / "claims.cc"
    lines = [f'static_assert({claim}, "{claim}");' for claim in claims]
    headers = ["#include <onnxruntime_c_api.h>", f'#include "{ABI}"']
    source.write_text("\n".join(headers + lines), encoding="utf-8")
    result = subprocess.run(
        [compiler, "-std=c++17", "-fsyntax-only", f"-I{folder}", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
