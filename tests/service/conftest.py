"""The application on the tiny model, in this process."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.from_thread
import anyio.lowlevel
import pytest

from service.app import create_app
from service.models import Model, load_model
from service.settings import Settings
from tests.service.harness import Client, Gate, tiny_model


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(tiny_model())
    return path


@pytest.fixture(scope="session")
def model(model_file: Path) -> Model:
    return load_model(model_file)


@pytest.fixture
def gate(model: Model) -> Iterator[Gate]:
    gate = Gate(model.session)
    yield gate
    gate.open.set()


@pytest.fixture
def gated(model: Model, gate: Gate) -> Model:
    """The model behind the gate."""
    return dataclasses.replace(model, session=gate)


@pytest.fixture(scope="session")
def serving(model: Model) -> Callable[..., Any]:
    @contextmanager
    def serve(served: Model = model, **settings: Any) -> Iterator[Client]:
        app = create_app({served.name: served}, Settings(**{"workers": 2, **settings}))
        lifespan = app.router.lifespan_context(app)
        with (
            anyio.from_thread.start_blocking_portal() as portal,
            portal.wrap_async_context_manager(lifespan),
        ):
            while app.state.engine.phase == "starting":
                portal.call(anyio.lowlevel.checkpoint)
            yield Client(app, portal)

    return serve


@pytest.fixture(scope="session")
def client(serving: Callable[..., Any]) -> Iterator[Client]:
    with serving() as client:
        yield client
