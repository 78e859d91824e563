"""The application on the tiny model, in this process."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

from ppool.service.http.app import create_app
from ppool.service.rpc.server import RpcServer
from ppool.service.settings import Settings
from ppool.service.workers.inference import Segmenter, load_segmenter
from ppool.service.workers.launch import Launched
from tests.service.harness import Client, Gate, SkippingLoop, ThreadWorker, tiny_model
from tests.service.traffic import until


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(tiny_model())
    return path


@pytest.fixture(scope="session")
def segmenter(model_file: Path) -> Segmenter:
    return load_segmenter(model_file)


@pytest.fixture
def gate(segmenter: Segmenter) -> Iterator[Gate]:
    gate = Gate(segmenter.session)
    yield gate
    gate.open.set()


@pytest.fixture
def gated(segmenter: Segmenter, gate: Gate) -> Segmenter:
    """The model behind the gate."""
    return dataclasses.replace(segmenter, session=gate)


@pytest.fixture(scope="session")
def serving(segmenter: Segmenter, model_file: Path) -> Callable[..., Any]:
    @contextmanager
    def serve(
        served: Segmenter = segmenter, tracing: Any = None, *, rpc: bool = False, **options: Any
    ) -> Iterator[Client]:
        def launch(lanes: int, _: str) -> Launched:
            return ThreadWorker.launch(lanes, lambda _: served)

        defaults = {"model": [model_file], "workers": 2, "threads": 1, "max_batch_size": 1}
        settings = Settings(**{**defaults, **options})
        beside = RpcServer(settings, 0) if rpc else None
        app = create_app(settings, launch=launch, tracing=tracing, beside=beside)
        if isinstance(served.session, Gate):
            # Behind it nothing is soon done, so nothing is to be sent ahead.
            app.state.engine.dispatcher.ahead_seconds = 0.0
        lifespan = app.router.lifespan_context(app)
        loop = {"loop_factory": SkippingLoop}
        with (
            anyio.from_thread.start_blocking_portal(backend_options=loop) as portal,
            portal.wrap_async_context_manager(lifespan),
        ):
            until(lambda: app.state.engine.phase != "starting")
            client = Client(app, portal)
            client.rpc_port = beside.port if beside else 0
            yield client

    return serve


@pytest.fixture(scope="session")
def client(serving: Callable[..., Any]) -> Iterator[Client]:
    with serving() as client:
        yield client
