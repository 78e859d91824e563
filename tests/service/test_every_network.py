"""Every network with every pooling: trains a step, evaluates, exports, and answers over HTTP.

Exporting takes seconds a network, so by default a network is exported with several poolings at
once, one a stage, until each has had its place; `make test-all` exports every pair.
"""

import gc
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F

from ppool.export import export_checkpoint
from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model, list_models, list_poolings, original_pooling
from ppool.service.workers.inference import load_segmenter
from ppool.training.dataset import Sample
from ppool.training.evaluate import evaluate, fed, predict
from tests.service.harness import encoded

CLASSES = tuple(LabelClass(i, f"class {i}", f"#{i:02x}0000") for i in range(3))
INPUT = InputPolicy(max_side=96, multiple=32)
NORMALISATION = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
Pooling = str | dict[str, str]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On maps of a few pixels, threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    """Tracing makes a million objects that stay: looking for garbage takes a fifth of its time.

    What has stayed once is not looked at again.
    """
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    gc.freeze()


def mixtures() -> list[Any]:
    """For each network, few assignments of poolings to stages in which every pooling occurs.

    A stage that none is left for keeps its original one.
    """
    cases = []
    for name in list_models():
        poolings = iter(list_poolings())
        original = original_pooling(name)
        while chosen := dict(zip(original, poolings, strict=False)):
            names = "+".join(chosen.values())
            cases.append(pytest.param(name, original | chosen, id=f"{name}-{names}"))
    return cases


def blotches(height: int, width: int) -> NDArray[np.uint8]:
    """A photo of three colours in soft blotches, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def step(model: nn.Module) -> None:
    """Train once on two images of noise, as every recipe does it: logits resized to the mask."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    logits = model.train()(torch.randn(2, 3, 64, 96))
    masks = torch.randint(0, len(CLASSES), (2, 64, 96))
    resized = F.interpolate(logits, masks.shape[-2:], mode="bilinear")
    F.cross_entropy(resized, masks).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@pytest.mark.parametrize("pooling", list_poolings())
@pytest.mark.parametrize("name", list_models())
def test_every_network_trains_a_step_and_evaluates_with_every_pooling(
    name: str, pooling: str
) -> None:
    torch.manual_seed(0)
    model = create_model(name, pooling=pooling, num_classes=len(CLASSES))
    first, *_ = model.parameters()
    before = first.detach().clone()
    step(model)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not torch.equal(before, first)
    sample = Sample(blotches(50, 70), blotches(50, 70).argmax(2).astype(np.uint8))
    found = evaluate(model, [sample], num_classes=3, normalise=NORMALISATION, policy=INPUT)
    assert found.counts[0].sum() == 50 * 70
    assert 0 <= found.everywhere.mean_iou <= 1


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize(("name", "pooling"), mixtures())
def test_every_network_exports_and_serves_with_every_pooling(
    name: str, pooling: Pooling, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    trains_exports_and_serves(name, pooling, tmp_path, serving)


@pytest.mark.every_pair
@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("pooling", list_poolings())
@pytest.mark.parametrize("name", list_models())
def test_every_pair_exports_and_serves(
    name: str, pooling: str, tmp_path: Path, serving: Callable[..., Any]
) -> None:
    trains_exports_and_serves(name, pooling, tmp_path, serving)


def trains_exports_and_serves(
    name: str, pooling: Pooling, folder: Path, serving: Callable[..., Any]
) -> None:
    torch.manual_seed(0)
    model = create_model(name, pooling=pooling, num_classes=len(CLASSES))
    step(model)
    Checkpoint(
        network=name,
        pooling=pooling,
        classes=CLASSES,
        input=INPUT,
        mean=NORMALISATION.mean,
        std=NORMALISATION.std,
        state_dict=model.state_dict(),
    ).save(folder / "checkpoint.pt")
    file = folder / "model.onnx"
    description = export_checkpoint(folder / "checkpoint.pt", file)
    stages = original_pooling(name)
    chosen = dict.fromkeys(stages, pooling) if isinstance(pooling, str) else pooling
    assert len(description.stages) == list(chosen.values()).count("ppool")

    photo = blotches(50, 70)
    feed = fed(Sample(photo, photo[..., 0]), INPUT)
    expected = predict(model.eval(), feed, NORMALISATION)
    with serving(load_segmenter(file), model=[file], workers=1) as client:
        answer = client.segment(encoded(photo))
        assert answer.status_code == 200, answer.text
        mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert mask.shape == expected.shape
    assert np.count_nonzero(mask != expected) <= 2
