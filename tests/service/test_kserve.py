"""KServe's own Python clients, which need an environment of their own: `make clients`."""

import os
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.running import free_port
from tests.service.harness import encoded, photo
from tests.service.test_segment import png
from tests.service.traffic import served

ROUND_TRIP = """
import asyncio, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

address, rpc, photo, pixels, masks = sys.argv[1:]

async def main():
    rest = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    grpc = InferenceGRPCClient(rpc)
    assert await rest.is_server_live(address) and await rest.is_server_ready(address)
    assert await rest.is_model_ready(address, "tiny")
    assert await grpc.is_server_live() and await grpc.is_server_ready()
    assert await grpc.is_model_ready("tiny")
    values = np.load(pixels)[None]
    file = np.array([open(photo, "rb").read()], np.object_)
    found = []
    # As JSON the client sends texts, not files.
    cases = (True, values, "UINT8"), (False, values, "UINT8"), (True, file, "BYTES")
    for binary, given, kind in cases:
        entry = InferInput("image", list(given.shape), kind)
        entry.set_data_from_numpy(given, binary_data=binary)
        output = RequestedOutput("mask", parameters={"binary_data": binary})
        asked = InferRequest("tiny", [entry], request_outputs=[output])
        for answer in (
            await rest.infer(address, asked, model_name="tiny"),
            await grpc.infer(asked),
        ):
            found.append(answer.outputs[0].as_numpy())
    for call in (rest.infer(address, asked, model_name="cats"), grpc.is_model_ready("cats")):
        try:
            answer = await call
        except Exception as error:
            assert "cats" in str(error) or "404" in str(error), error
        else:
            assert answer is False, answer
    await grpc.close()
    await rest.close()
    np.save(masks, np.concatenate(found))

asyncio.run(main())
"""


@pytest.mark.skipif("KSERVE_PYTHON" not in os.environ, reason="run by `make clients`")
def test_kserves_clients_are_answered(model_file: Path, tmp_path: Path) -> None:
    file, pixels, masks = (tmp_path / name for name in ("photo.png", "pixels.npy", "masks.npy"))
    file.write_bytes(encoded(photo(70, 50)))
    np.save(pixels, photo(70, 50))
    port = str(free_port())
    with served(str(model_file), PPOOL_GRPC_PORT=port) as server:
        addresses = server.address, f"127.0.0.1:{port}"
        done = subprocess.run(
            [os.environ["KSERVE_PYTHON"], "-c", ROUND_TRIP, *addresses, file, pixels, masks],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        content = httpx.post(f"{server.address}/segment", content=file.read_bytes()).content
    wanted = np.asarray(png(content))
    np.testing.assert_array_equal(np.load(masks), np.stack([wanted] * 6))
