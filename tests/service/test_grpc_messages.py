"""The messages of gRPC against the official ones, and requests cut apart against protobuf."""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as official

from ppool.service.http.errors import BadRequest, ServiceError
from ppool.service.rpc.messages import kind
from ppool.service.rpc.wire import Lifted, lifted
from tests.service.test_grpc import request
from tests.service.traffic import ROOT


def fields(message: Any) -> dict[str, tuple[int, int, int]]:
    """Number, type and whether it is a list, by name."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return {field.name: (field.number, field.type, field.label) for field in proto.field}


def test_the_messages_are_those_of_triton() -> None:
    """Field by field: number, type, and whether it is a list."""
    pools = official.DESCRIPTOR.pool, kind("inference.ModelInferRequest").DESCRIPTOR.file.pool
    file = pools[1].FindFileByName("inference.proto")
    compared = 0
    waiting = list(file.message_types_by_name.values())
    while waiting:
        ours = waiting.pop()
        waiting += ours.nested_types
        theirs = pools[0].FindMessageTypeByName(ours.full_name)
        others = fields(theirs)
        for name, field in fields(ours).items():
            assert field == others[name], f"{ours.full_name}.{name}"
            compared += 1
    assert compared > 100
    for name, enum in file.enum_types_by_name.items():
        theirs = pools[0].FindEnumTypeByName(f"inference.{name}").values_by_name
        for value in enum.values:
            assert value.number == theirs[value.name].number


def test_what_is_loaded_is_compiled_from_what_can_be_read(tmp_path: Path) -> None:
    folder = ROOT / "service/rpc/protos"
    done = protoc.main(
        [
            "protoc",
            f"-I{folder}",
            f"-I{Path(protoc.__file__).parent / '_proto'}",
            "--include_imports",
            f"--descriptor_set_out={tmp_path / 'protocol.binpb'}",
            *sorted(path.name for path in folder.glob("*.proto")),
        ]
    )
    assert done == 0
    files = [
        {file.name: file for file in FileDescriptorSet.FromString(path.read_bytes()).file}
        for path in (tmp_path / "protocol.binpb", folder / "protocol.binpb")
    ]
    assert files[0] == files[1]


NAMES = ("tiny", "", "image", "mask")


@st.composite
def messages(draw: Any) -> Any:
    """Requests of all kinds, sensible or not."""
    texts, count = st.sampled_from(NAMES), st.integers(0, 2)
    message = official.ModelInferRequest(model_name=draw(texts), id=draw(st.text(max_size=5)))
    for _ in range(draw(count)):
        tensor = message.inputs.add(name=draw(texts), shape=draw(st.lists(count)))
        if draw(st.booleans()):
            tensor.contents.uint_contents.extend(draw(st.lists(st.integers(0, 255))))
        tensor.parameters["a"].int64_param = draw(count)
    for _ in range(draw(count)):
        message.outputs.add(name=draw(texts))
    message.raw_input_contents.extend(draw(st.lists(st.binary(max_size=200), max_size=3)))
    return message


@given(messages())
def test_a_request_cut_apart_is_what_protobuf_reads(message: Any) -> None:
    found = finished(lifted(message.SerializeToString(), 10_000, 10))
    assert [bytes(raw) for raw in found.raw] == list(message.raw_input_contents)
    typed = [value for tensor in message.inputs for value in tensor.contents.uint_contents]
    assert list(found.typed or b"") == typed
    message.ClearField("raw_input_contents")
    for tensor in message.inputs:
        tensor.ClearField("contents")
    assert official.ModelInferRequest.FromString(found.rest) == message


@given(st.binary(max_size=60))
def test_of_any_bytes_at_worst_a_refusal_comes(content: bytes) -> None:
    with contextlib.suppress(ServiceError):
        finished(lifted(content, 10_000, 10))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_numbers_are_taken_if_they_are_bytes(values: list[int]) -> None:
    contents = official.InferTensorContents(uint_contents=values)
    message = request(raw_input_contents=[], tensor={"contents": contents})
    if max(values) > 255:
        with pytest.raises(BadRequest, match="from 0 to 255"):
            finished(lifted(message.SerializeToString(), 10_000, 10))
    else:
        assert finished(lifted(message.SerializeToString(), 10_000, 10)).typed == bytes(values)


def finished(steps: Generator[None, None, Lifted]) -> Lifted:
    """What a generator returns in the end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("Lifted", end.value)
