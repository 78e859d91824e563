"""The Open Inference Protocol over gRPC, asked by Triton's own client and by gRPC itself."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.grpc import service_pb2 as official
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import deserialize_bytes_tensor

from ppool.service.workers.inference import Segmenter
from tests.service.harness import Client, Gate, encoded, photo
from tests.service.test_segment import outputs_of, png
from tests.service.traffic import PATIENCE_SECONDS, until

PHOTOS = np.stack([photo(60, 40), photo(60, 40, seed=1)])
FILES = [encoded(pixels, "JPEG") for pixels in PHOTOS]
Code = grpc.StatusCode


def request(**changes: Any) -> Any:
    """A call for the masks of two photos, as official messages have it."""
    entry: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": PHOTOS.shape}
    tensor = official.ModelInferRequest.InferInputTensor(**entry | changes.pop("tensor", {}))
    message = official.ModelInferRequest(model_name="tiny", inputs=[tensor])
    message.raw_input_contents.append(PHOTOS.tobytes())
    for name, value in changes.items():
        message.ClearField(name)
        message.MergeFrom(official.ModelInferRequest(**{name: value}))
    return message


def masks(answer: Any, index: int = 0, dtype: Any = np.uint8) -> Any:
    raw = np.frombuffer(answer.raw_output_contents[index], dtype)
    return raw.reshape(answer.outputs[index].shape)


@contextmanager
def channel(client: Client) -> Iterator[grpc.Channel]:
    options = [
        *(("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)),
        ("grpc.http2.bdp_probe", 0),  # what is not read is left to the server
    ]
    with grpc.insecure_channel(f"127.0.0.1:{client.rpc_port}", options) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(serving: Callable[..., Any]) -> Iterator[Client]:
    with serving(rpc=True, max_body_bytes=200_000) as client:
        yield client


@pytest.fixture(scope="module")
def opened(client: Client) -> Iterator[grpc.Channel]:
    with channel(client) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(opened: grpc.Channel) -> Any:
    return GRPCInferenceServiceStub(opened)


def refusal(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def details(error: Any) -> tuple[Status, ErrorInfo, RetryInfo | None]:
    """What the status says to programs."""
    trailers = dict(error.trailing_metadata())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    return status, info, retry if status.details[1:] and status.details[1].Unpack(retry) else None


def test_masks_are_those_of_http_however_the_photos_are_sent(client: Client, stub: Any) -> None:
    wanted = np.stack([np.asarray(png(client.segment(file).content)) for file in FILES])
    content = official.InferTensorContents
    plain = request()
    typed = request(
        raw_input_contents=[], tensor={"contents": content(uint_contents=PHOTOS.ravel().tolist())}
    )
    pixels = np.stack([np.asarray(png(client.segment(encoded(p)).content)) for p in PHOTOS])
    for message in (plain, typed):
        answer = stub.ModelInfer(message)
        assert (answer.model_name, answer.outputs[0].datatype) == ("tiny", "UINT8")
        np.testing.assert_array_equal(masks(answer), pixels)
    entry = {"datatype": "BYTES", "shape": [2]}
    raw = b"".join(len(file).to_bytes(4, "little") + file for file in FILES)
    for message in (
        request(tensor=entry, raw_input_contents=[raw]),
        request(tensor=entry | {"contents": content(bytes_contents=FILES)}, raw_input_contents=[]),
    ):
        np.testing.assert_array_equal(masks(stub.ModelInfer(message)), wanted)


def test_alpha_maps_and_classes_are_outputs(stub: Any, segmenter: Segmenter) -> None:
    output = official.ModelInferRequest.InferRequestedOutputTensor
    classified = output(name="mask")
    classified.parameters["classification"].int64_param = 2
    answer = stub.ModelInfer(request(outputs=[output(name="alpha/pool2"), classified], id="7"))
    assert answer.id == "7"
    expected = [outputs_of(segmenter, pixels) for pixels in PHOTOS]
    alphas = np.stack([entry["alpha/pool2"] for entry in expected])
    np.testing.assert_array_equal(masks(answer, 0, np.float32), alphas)
    assert (answer.outputs[1].datatype, list(answer.outputs[1].shape)) == ("BYTES", [2, 2])
    first = answer.raw_output_contents[1][4:].split(b"\0")[0]
    shares = np.bincount(expected[0]["mask"].ravel(), minlength=3) / expected[0]["mask"].size
    share, index, name = first[: first.index(b":", 10) + 7].decode().split(":")[:3]
    assert int(index) == shares.argmax()
    assert float(share) == pytest.approx(shares.max(), abs=1e-6)
    assert ("dark", "middle", "bright")[int(index)].startswith(name[:4])


def test_classes_cut_outs_and_polygons_are_those_of_http(client: Client, stub: Any) -> None:
    output = official.ModelInferRequest.InferRequestedOutputTensor
    raw = b"".join(len(file).to_bytes(4, "little") + file for file in FILES)
    message = request(
        tensor={"datatype": "BYTES", "shape": [2]},
        raw_input_contents=[raw],
        outputs=[output(name=name) for name in ("cutout", "polygons", "mask", "components")],
    )
    message.parameters["classes"].string_param = "dark,2"
    message.parameters["cutout"].string_param = "bright"
    message.parameters["tolerance"].double_param = 0.5
    answer = stub.ModelInfer(message)
    cutouts, polygons, components = (
        deserialized(answer.raw_output_contents[index]) for index in (0, 1, 3)
    )
    query = "?classes=dark,2&tolerance=0.5"
    for index, file in enumerate(FILES):
        assert cutouts[index] == client.segment(file, f"{query}&cutout=bright").content
        of_http = client.segment(file, f"{query}&answers=polygons", accept="application/geo+json")
        assert polygons[index] == of_http.content
        of_http = client.segment(file, f"{query}&answers=components", accept="application/json")
        assert json.loads(components[index]) == of_http.json()["images"][0]["components"]
        mask = np.asarray(png(client.segment(file, query).content))
        np.testing.assert_array_equal(masks(answer, 2)[index], mask)


def deserialized(raw: bytes) -> list[bytes]:
    """By Triton's own function."""
    return [bytes(element) for element in deserialize_bytes_tensor(raw)]


def test_what_is_told_of_models_is_what_http_tells(client: Client, opened: grpc.Channel) -> None:
    address = f"127.0.0.1:{client.rpc_port}"
    with triton.InferenceServerClient(address) as asked:
        assert asked.is_server_live()
        assert asked.is_server_ready()
        assert asked.is_model_ready("tiny", "1")
        told = {
            "/v2": asked.get_server_metadata(as_json=True),
            "/v2/models/tiny": asked.get_model_metadata("tiny", as_json=True),
        }
        config = asked.get_model_config("tiny", as_json=True)["config"]
        index = asked.get_model_repository_index().models
        counted = asked.get_inference_statistics("tiny").model_stats[0]
    for path, document in told.items():
        assert as_text(document) == as_text(client.get(path).json())
    by_http = client.get("/v2/models/tiny/config").json()
    assert config["name"] == by_http["name"]
    assert config["input"][0]["data_type"] == by_http["input"][0]["data_type"]
    assert [entry.name for entry in index] == ["tiny"]
    assert counted.inference_stats.success.count > 0


def as_text(value: Any) -> Any:
    """With whole numbers as text, which is how protobuf writes long ones in JSON."""
    if isinstance(value, dict):
        return {key: as_text(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [as_text(entry) for entry in value]
    return str(value)


CASES = {
    "no such model": (request(model_name="cats"), Code.NOT_FOUND, "unknown-model"),
    "no such version": (request(model_version="2"), Code.INVALID_ARGUMENT, "bad-request"),
    "another input": (request(tensor={"name": "x"}), Code.INVALID_ARGUMENT, "bad-request"),
    "another type": (request(tensor={"datatype": "FP32"}), Code.INVALID_ARGUMENT, "bad-request"),
    "too few bytes": (request(raw_input_contents=[b"7"]), Code.INVALID_ARGUMENT, "bad-request"),
    "two tensors": (request(raw_input_contents=[b"", b""]), Code.INVALID_ARGUMENT, "bad-request"),
    "no photo": (
        request(tensor={"datatype": "BYTES", "shape": [1]}, raw_input_contents=[b"\4\0\0\0none"]),
        Code.INVALID_ARGUMENT,
        "unsupported-image",
    ),
    "a number over 255": (
        request(
            raw_input_contents=[],
            tensor={"contents": official.InferTensorContents(uint_contents=[256] * PHOTOS.size)},
        ),
        Code.INVALID_ARGUMENT,
        "bad-request",
    ),
    "another kind of number": (
        request(
            raw_input_contents=[],
            tensor={"contents": official.InferTensorContents(int_contents=[7] * PHOTOS.size)},
        ),
        Code.INVALID_ARGUMENT,
        "bad-request",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_has_a_status_and_a_reason(stub: Any, case: str) -> None:
    message, code, reason = CASES[case]
    error = refusal(lambda: stub.ModelInfer(message))
    assert (error.code(), details(error)[1].reason) == (code, reason), error.details()
    assert dict(error.trailing_metadata())["x-request-id"]


@pytest.mark.parametrize(
    ("method", "content", "code"),
    [
        ("ModelInfer", b"\xff", Code.INVALID_ARGUMENT),
        ("ModelInfer", b"\x2a\0" * 90_000, Code.NOT_FOUND),  # parsed: no model is called ""
        ("ModelInfer", b"\x3a\0" * 90_000, Code.INVALID_ARGUMENT),
        ("ModelInfer", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", Code.INVALID_ARGUMENT),
        ("ModelInfer", bytes(200_001), Code.RESOURCE_EXHAUSTED),
        ("ModelMetadata", b"\xff", Code.INVALID_ARGUMENT),
        ("ModelMetadata", bytes(100_000), Code.INVALID_ARGUMENT),
        ("ModelStreamInfer", b"", Code.UNIMPLEMENTED),
        ("RepositoryModelUnload", b"", Code.PERMISSION_DENIED),
        ("Nothing", b"", Code.UNIMPLEMENTED),
    ],
)
def test_bytes_that_no_client_sends_are_refused(
    opened: grpc.Channel, method: str, content: bytes, code: Code
) -> None:
    call = opened.unary_unary(f"/inference.GRPCInferenceService/{method}")
    assert refusal(lambda: call(content)).code() == code


def test_a_compressed_message_is_bounded_by_what_it_becomes(
    client: Client, opened: grpc.Channel
) -> None:
    call = opened.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    small = call(request().SerializeToString(), compression=grpc.Compression.Gzip)
    assert official.ModelInferResponse.FromString(small).outputs
    error = refusal(lambda: call(bytes(100_000_000), compression=grpc.Compression.Gzip))
    assert error.code() == Code.RESOURCE_EXHAUSTED


def test_calls_are_counted_as_requests(client: Client, stub: Any) -> None:
    lines = [
        f'ppool_requests_total{{reason="{reason}",status="{status}"}}'
        for reason, status in (("ok", 200), ("bad-request", 400))
    ]
    before = [client.metric(line) for line in lines]
    stub.ModelInfer(request())
    refusal(lambda: stub.ModelInfer(request(model_version="2")))
    assert [client.metric(line) for line in lines] == [count + 1 for count in before]


def test_the_answer_tells_its_request_its_model_and_its_stages(stub: Any) -> None:
    _, call = stub.ModelInfer.with_call(request(), metadata=[("x-request-id", "mine")])
    trailers = dict(call.trailing_metadata())
    assert (trailers["x-request-id"], trailers["x-model"]) == ("mine", "tiny")
    assert "infer;dur=" in trailers["server-timing"]


def test_a_key_is_asked_for_but_not_by_probes(serving: Callable[..., Any]) -> None:
    with serving(rpc=True, api_keys="secret") as client, channel(client) as opened:
        stub = GRPCInferenceServiceStub(opened)
        for metadata in ((), (("authorization", "Bearer other"),), (("x-api-key", "geheim"),)):
            error = refusal(lambda sent=metadata: stub.ModelInfer(request(), metadata=sent))
            assert (error.code(), details(error)[1].reason) == (
                Code.UNAUTHENTICATED,
                "unauthorized",
            )
        for metadata in ((("authorization", "Bearer secret"),), (("x-api-key", "secret"),)):
            assert stub.ModelInfer(request(), metadata=metadata).outputs
        assert stub.ServerLive(official.ServerLiveRequest()).live
        assert stub.ServerReady(official.ServerReadyRequest()).ready
        assert HealthStub(opened).Check(HealthCheckRequest()).status == 1


def test_overload_is_resource_exhausted_and_says_when_to_come_back(
    serving: Callable[..., Any], gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, rpc=True, max_requests=1) as client, channel(client) as opened:
        stub = GRPCInferenceServiceStub(opened)
        gate.close()
        pending = stub.ModelInfer.future(request())
        assert gate.arrived.acquire(timeout=PATIENCE_SECONDS)
        error = refusal(lambda: stub.ModelInfer(request()))
        gate.open.set()
        assert pending.result(PATIENCE_SECONDS).outputs
        assert client.metric('ppool_refused_total{reason="requests"}') == 1
    _, info, retry = details(error)
    assert (error.code(), info.reason) == (Code.RESOURCE_EXHAUSTED, "overloaded")
    assert retry is not None
    assert retry.retry_delay.seconds >= 1
    pushback = dict(error.trailing_metadata())["grpc-retry-pushback-ms"]
    assert int(pushback) == retry.retry_delay.seconds * 1000


def test_the_servers_own_limit_names_the_stage(
    serving: Callable[..., Any], gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, rpc=True) as client, channel(client) as opened:
        gate.close()
        pending = GRPCInferenceServiceStub(opened).ModelInfer.future(request())
        assert gate.arrived.acquire(timeout=PATIENCE_SECONDS)
        client.skip(31)
        error = refusal(lambda: pending.result(PATIENCE_SECONDS))
        gate.open.set()
    assert error.code() == Code.DEADLINE_EXCEEDED
    assert details(error)[1].metadata["stage"] in {"queue", "infer"}


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_a_caller_that_waits_no_longer_leaves_the_queue(
    serving: Callable[..., Any], gated: Segmenter, gate: Gate, how: str
) -> None:
    with serving(gated, rpc=True, workers=1) as client, channel(client) as opened:
        stub = GRPCInferenceServiceStub(opened)
        gate.close()
        first = stub.ModelInfer.future(request())
        assert gate.arrived.acquire(timeout=PATIENCE_SECONDS)
        until(lambda: client.metric("ppool_queue_depth") == 1)
        waiting = stub.ModelInfer.future(request(), timeout=1 if how == "deadline" else None)
        if how == "cancelled":
            until(lambda: client.metric("ppool_queue_depth") == 3)
            waiting.cancel()
        else:
            assert (
                refusal(lambda: waiting.result(PATIENCE_SECONDS)).code() == Code.DEADLINE_EXCEEDED
            )
        until(lambda: client.metric("ppool_queue_depth") == 1)
        gate.open.set()
        assert first.result(PATIENCE_SECONDS).outputs
        until(lambda: client.metric("ppool_requests_total") == 2)


def succeeds(call: Callable[[], Any]) -> bool:
    try:
        call()
    except grpc.RpcError:
        return False
    return True


def test_answers_that_nobody_takes_count_until_their_calls_end(
    serving: Callable[..., Any],
) -> None:
    """Twelve megabytes each, of which forty may be held."""
    large = np.stack([photo(1500, 1000)] * 8)
    file = encoded(large[0])
    raw = (len(file).to_bytes(4, "little") + file) * len(large)
    asked = request(tensor={"datatype": "BYTES", "shape": [8]}, raw_input_contents=[raw])
    limits = {"max_body_bytes": 10**8, "queue_bytes": 4 * 10**7}
    gone = 'ppool_requests_total{reason="client-gone",status="499"}'
    answered = 'ppool_stage_seconds_count{model="tiny",stage="total"}'
    with serving(rpc=True, **limits) as client, channel(client) as opened:
        stub = GRPCInferenceServiceStub(opened)
        method = opened.unary_stream("/inference.GRPCInferenceService/ModelInfer")
        untaken = []
        for count in range(1, 5):
            assert stub.ModelInfer(request()).outputs
            untaken.append(method(asked.SerializeToString()))  # read only when it is iterated
            until(lambda count=count: client.metric(answered) == 2 * count)
            until(lambda count=count: client.skip(200) or client.metric(gone) == count)
        error = refusal(lambda: stub.ModelInfer(request()))
        assert (error.code(), "bytes" in error.details()) == (Code.RESOURCE_EXHAUSTED, True)
        untaken[0].cancel()
        until(lambda: succeeds(lambda: stub.ModelInfer(request())))
        for call in untaken:
            call.cancel()


def test_health_is_watched_and_told_when_the_service_drains(
    serving: Callable[..., Any], gated: Segmenter, gate: Gate
) -> None:
    with serving(gated, rpc=True) as client, channel(client) as opened:
        health, stub = HealthStub(opened), GRPCInferenceServiceStub(opened)
        for service in ("", "inference.GRPCInferenceService"):
            assert health.Check(HealthCheckRequest(service=service)).status == 1
        unknown = HealthCheckRequest(service="cats")
        assert refusal(lambda: health.Check(unknown)).code() == Code.NOT_FOUND
        assert next(health.Watch(unknown)).status == HealthCheckResponse.SERVICE_UNKNOWN
        watch = health.Watch(HealthCheckRequest())
        assert next(watch).status == HealthCheckResponse.SERVING
        gate.close()
        pending = stub.ModelInfer.future(request())
        assert gate.arrived.acquire(timeout=PATIENCE_SECONDS)
        client.app.state.engine.drain()
        assert [answer.status for answer in watch] == [HealthCheckResponse.NOT_SERVING]
        assert not stub.ServerReady(official.ServerReadyRequest()).ready
        gate.open.set()
        assert pending.result(PATIENCE_SECONDS).outputs
