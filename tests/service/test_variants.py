"""Which of two files is served, from rates that the tests make up."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ppool.metadata import CONVERTED
from ppool.service.workers.cores import multiplies_bytes
from ppool.service.workers.messages import Load, Probe
from ppool.service.workers.variants import Variants
from tests.service.test_registry import Shelf

EXACT, INT8 = "a.onnx", "a-int8.onnx"
SAID = {"precision": "int8", "mean_iou": 0.842, "mean_iou_before": 0.85, "images": 9}


class Stand(Shelf):
    """Workers that run each file at a rate, and to whom the file in int8 says something."""

    def __init__(
        self, folder: Path, rates: Mapping[str, float], said: Any, *, able: bool = True, **more: Any
    ) -> None:
        more = {"precision": "auto", "workers": 2, "threads": 1} | more
        super().__init__(cores=2, model=[folder], **more)
        loader = self.registry._loader
        self.registry._variants = Variants(self.settings, self.pool, loader, able=able)
        self._rates, self._said = rates, said
        self._files: dict[int, str] = {}

    def _send(self, message: object, seconds: float) -> asyncio.Future[Any]:
        reply = super()._send(message, seconds)
        match message:
            case Load(handle, file):
                self._files[handle] = file.path.name
                if file.path.name == INT8:
                    about = replace(reply.result(), training={CONVERTED: self._said})
                    reply = asyncio.get_running_loop().create_future()
                    reply.set_result(about)
            case Probe(handle):
                reply = asyncio.get_running_loop().create_future()
                reply.set_result((0.01, self._rates[self._files[handle]]))
        return reply

    async def files(self) -> dict[str, str]:
        """Which file is served under each name, once it is chosen."""
        await self.registry.start()
        await self.registry.choose_variants()
        return {name: served.model.file for name, served in self.registry.models.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / EXACT).write_bytes(b"exact")
    (tmp_path / INT8).write_bytes(b"int8")
    return tmp_path


def said(content: bytes = b"exact", **more: Any) -> dict[str, Any]:
    return SAID | {"of": hashlib.sha256(content).hexdigest()} | more


FAST = {EXACT: 100.0, INT8: 200.0}


def test_what_is_faster_and_loses_little_answers_under_the_same_name(folder: Path) -> None:
    assert asyncio.run(Stand(folder, FAST, said()).files()) == {"a": INT8}


@pytest.mark.parametrize(
    ("rates", "about", "options", "reason"),
    [
        (FAST | {INT8: 110.0}, said(), {}, "220.0 images a second instead of 200.0"),
        (FAST, said(mean_iou=0.83), {}, "loses 2.0 points"),
        (FAST, said(mean_iou=float("nan")), {}, "loses nan points"),
        (FAST, said(b"another"), {}, "made of another file than a.onnx"),
        (FAST, {"precision": "int8", "of": said()["of"]}, {}, "does not say what it loses"),
        (FAST, "int8", {}, "does not say what it loses"),
        (FAST, said(), {"able": False}, "no VNNI"),
        (FAST, said(), {"tune_seconds": 0}, "not measured"),
    ],
)
def test_else_the_exact_file_answers_and_the_log_says_why(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    rates: dict[str, float],
    about: Any,
    options: dict[str, Any],
    reason: str,
) -> None:
    caplog.set_level("INFO", "ppool.service")
    stand = Stand(folder, rates, about, **options)
    assert asyncio.run(stand.files()) == {"a": EXACT}
    assert reason in caplog.text
    # It is left in no worker.
    assert {handle for worker in stand.pool.workers for handle in worker.loaded} == {0}


def test_unless_it_is_allowed_both_are_models_of_their_own(folder: Path) -> None:
    stand = Stand(folder, FAST, said(), precision="exact")
    assert asyncio.run(stand.files()) == {"a": EXACT, "a-int8": INT8}


def test_a_new_exact_file_is_served_until_one_in_int8_is_made_of_it(folder: Path) -> None:
    async def story() -> list[str]:
        stand = Stand(folder, FAST, said())
        await stand.files()
        await stand.registry.reload()
        seen = [stand.registry.models["a"].model.file]
        for content in (b"a newer one", b"exact"):
            (folder / EXACT).write_bytes(content)
            await stand.registry.reload()
            seen.append(stand.registry.models["a"].model.file)
        return seen

    assert asyncio.run(story()) == [INT8, EXACT, INT8]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags\t\t: fpu avx2 avx_vnni", True), ("Features\t: fp asimd asimddp", True),
     ("flags\t\t: fpu avx2 avx512f", False), (None, False)],
)  # fmt: skip
def test_the_processor_is_asked_for_what_makes_int8_pay(
    tmp_path: Path, flags: str | None, expected: bool
) -> None:
    if flags is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert multiplies_bytes(tmp_path) is expected
