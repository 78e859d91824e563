"""Evaluation against independent libraries on random inputs."""

import re
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)
from typer.testing import CliRunner

from ppool.feeding import Normalisation
from ppool.metadata import InputPolicy, LabelClass
from ppool.models import Checkpoint, create_model
from ppool.scoring import IGNORE
from ppool.training.boundary import boundary_band
from ppool.training.dataset import Sample
from ppool.training.evaluate import Evaluation, evaluate
from ppool.training.ranking import Ranking
from research.__main__ import app
from research.pages import PAGE_CLASSES

Mask = NDArray[np.uint8]
CLASSES = tuple(LabelClass(i, f"class {i}", "#000000") for i in range(6))
AS_IS = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@st.composite
def cases(draw: st.DrawFn) -> list[tuple[Mask, Mask]]:
    """A few images of blocks: truths with ignored pixels, and predictions."""
    labels = st.integers(0, 5)
    result = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        truth = draw(arrays.arrays(np.uint8, shape, elements=labels | st.just(IGNORE)))
        prediction = draw(arrays.arrays(np.uint8, shape, elements=labels))
        block = np.ones((draw(st.integers(1, 6)), draw(st.integers(1, 6))), np.uint8)
        result.append((np.kron(truth, block), np.kron(prediction, block)))
    return result


def band_by_distances(mask: Mask, distance: int) -> NDArray[np.bool_]:
    """The definition, label by label: how far is the nearest pixel of another one?"""
    band = np.zeros(mask.shape, bool)
    for label in np.unique(mask):
        inside = mask == label
        if not inside.all():
            band |= inside & (ndimage.distance_transform_edt(inside) <= distance)
    return band


def counted(case: list[tuple[Mask, Mask]], band: int = 2) -> Evaluation:
    evaluation = Evaluation(6, band)
    for truth, prediction in case:
        evaluation.update(truth, prediction)
    return evaluation


def flat(parts: list[Mask]) -> Tensor:
    return torch.from_numpy(np.concatenate([part.ravel() for part in parts]).astype(np.int64))


@given(case=cases())
def test_scores_equal_those_of_torchmetrics(case: list[tuple[Mask, Mask]]) -> None:
    evaluation = counted(case)
    truth, prediction = (flat([pair[i] for pair in case]) for i in (0, 1))
    band = [boundary_band(pair[0], 2) for pair in case]
    near = [flat([p[i][b] for p, b in zip(case, band, strict=True)]) for i in (0, 1)]
    for matrix, (t, p) in (
        (evaluation.everywhere, (truth, prediction)),
        (evaluation.boundary, near),
    ):
        expected = multiclass_confusion_matrix(p, t, 6, ignore_index=IGNORE)
        assert np.array_equal(matrix.counts, expected.numpy())
        if not matrix.counts.any():
            assert np.isnan(matrix.iou).all()
            assert np.isnan([matrix.mean_iou, matrix.mean_accuracy, matrix.pixel_accuracy]).all()
            continue
        iou = multiclass_jaccard_index(p, t, 6, average="none", ignore_index=IGNORE).numpy()
        found = matrix.iou
        occurs = (matrix.counts.sum(0) + matrix.counts.sum(1)) > 0
        assert np.array_equal(np.isnan(found), ~occurs)
        np.testing.assert_allclose(found[occurs], iou[occurs], rtol=1e-6)
        assert matrix.mean_iou == pytest.approx(iou[occurs].mean())
        micro = multiclass_accuracy(p, t, 6, average="micro", ignore_index=IGNORE)
        assert matrix.pixel_accuracy == pytest.approx(float(micro))
        recall = multiclass_accuracy(p, t, 6, average="none", ignore_index=IGNORE).numpy()
        present = matrix.counts.sum(1) > 0
        np.testing.assert_allclose(matrix.accuracy[present], recall[present], rtol=1e-6)
        assert matrix.mean_accuracy == pytest.approx(recall[present].mean())


@given(
    truth=arrays.arrays(np.uint8, (6, 7), elements=st.sampled_from((0, 1, IGNORE))),
    margin=arrays.arrays(np.int8, (6, 7), elements=st.integers(-9, 9)),
)
def test_the_area_under_the_curve_is_that_of_torchmetrics(
    truth: Mask, margin: NDArray[np.int8]
) -> None:
    ranking, halves = Ranking(), Ranking()
    ranking.update(truth, margin.astype(np.float32))
    for rows in (slice(0, 2), slice(2, 6)):
        halves.update(truth[rows], margin[rows].astype(np.float32))
    assert np.array_equal(halves.counts, ranking.counts)
    if not {0, 1} <= set(np.unique(truth)):
        assert np.isnan(ranking.auc)
        return
    seen = torch.from_numpy(truth != IGNORE)
    probability = torch.from_numpy(margin.astype(np.float64)).sigmoid()[seen]
    expected = binary_auroc(probability, torch.from_numpy(truth).long()[seen])
    assert ranking.auc == pytest.approx(float(expected), abs=1e-6)


def test_logits_beyond_every_probability_are_counted_at_the_ends() -> None:
    ranking = Ranking()
    ranking.update(np.array([[0, 1, 0, 1]], np.uint8), np.array([[-np.inf, np.inf, -1e9, 40.0]]))
    assert ranking.auc == 1
    assert ranking.counts[:, [0, -1]].tolist() == [[2, 0], [0, 2]]


@given(case=cases(), distance=st.integers(1, 7))
def test_the_band_is_what_lies_near_another_label(
    case: list[tuple[Mask, Mask]], distance: int
) -> None:
    for mask, _ in case:
        assert np.array_equal(boundary_band(mask, distance), band_by_distances(mask, distance))


def test_a_line_is_all_boundary_and_a_plain_mask_has_none() -> None:
    mask = np.zeros((20, 20), np.uint8)
    assert not boundary_band(mask, 5).any()
    mask[10] = 1
    assert np.array_equal(boundary_band(mask, 1).any(1).nonzero()[0], [9, 10, 11])
    with pytest.raises(ValueError, match="expected at least 1 pixel, got 0"):
        boundary_band(mask, 0)


def test_a_class_only_predicted_scores_0_and_one_nowhere_is_left_out() -> None:
    truth, prediction = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    prediction[0, 0] = 3
    evaluation = counted([(truth, prediction)])
    scores = evaluation.scores(CLASSES)
    assert scores["iou"] == {f"class {i}": {0: 0.875, 3: 0.0}.get(i) for i in range(6)}
    assert scores["mean_iou"] == pytest.approx(0.4375, abs=1e-4)
    assert (scores["mean_accuracy"], scores["pixel_accuracy"]) == (0.875, 0.875)
    assert scores["boundary_iou"] is None


def test_processes_add_their_counts() -> None:
    rng = np.random.default_rng(0)
    images = [tuple(rng.integers(0, 6, (9, 8), np.uint8) for _ in range(2)) for _ in range(4)]
    together, first, second = counted(images), counted(images[:1]), counted(images[1:])
    assert np.array_equal(first.counts + second.counts, together.counts)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.full((1, 1), 7, np.uint8), np.zeros((1, 1), np.uint8), "classes 0 to 5, got 7"),
        (np.zeros((1, 2), np.uint8), np.zeros((1, 1), np.uint8), "expected equal shapes"),
    ],
)
def test_what_cannot_be_counted_is_refused(truth: Mask, prediction: Mask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        counted([(truth, prediction)])


class Brightest(nn.Module):
    """The class of a pixel is its largest channel; dropout would show evaluation left on."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2] % 4 == x.shape[-1] % 4 == 0
        y: Tensor = self.dropout(self.scale * x)
        return y


def test_a_split_is_scored_in_evaluation_mode_at_its_own_size(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 256, (11, 14, 3), np.uint8) for _ in range(3)]
    pages = [Sample(image, image.argmax(2).astype(np.uint8)) for image in images]
    model = Brightest().train()
    found = evaluate(
        model, pages, num_classes=3, normalise=AS_IS, policy=InputPolicy(64, 4), band=1
    )
    assert model.training
    assert found.everywhere.mean_iou == found.boundary.mean_iou == 1
    assert found.counts[0].sum() == 3 * 11 * 14
    assert len(found.seconds) == 3
    assert found.milliseconds > 0
    cells = [list(column.cells) for column in found.table(CLASSES[:3]).columns]
    assert cells[0] == ["class 0", "class 1", "class 2", "mean", "pixel accuracy"]
    assert cells[1] == ["100.0"] * 4 + [""]


class Redness(nn.Module):
    """Two classes, the second the likelier the redder a pixel, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        red = x[:, :1, ::2, ::2] - x[:, 1:2, ::2, ::2]
        return torch.cat([-self.scale * red, self.scale * red], 1)


def test_two_classes_are_ranked_where_the_truth_counts(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 256, (11, 14, 3), np.uint8) for _ in range(2)]
    truths = [rng.choice(np.array([0, 1, IGNORE], np.uint8), (11, 14)) for _ in images]
    pages = [Sample(image, truth) for image, truth in zip(images, truths, strict=True)]
    found = evaluate(
        Redness(), pages, num_classes=2, normalise=AS_IS, policy=InputPolicy(64, 4), band=1
    )
    probabilities = []
    for image in images:
        padded = np.pad(image, ((0, 1), (0, 2), (0, 0)), mode="edge").astype(np.float32) / 255
        logits = Redness()(torch.from_numpy(padded).permute(2, 0, 1)[None])
        grown = nn.functional.interpolate(logits, scale_factor=2.0, mode="bilinear")
        probabilities.append(grown.softmax(1)[0, 1, :11, :14].flatten())
    expected = binary_auroc(torch.cat(probabilities), flat(truths), ignore_index=IGNORE)
    scores = found.scores(CLASSES[:2])
    assert scores["auc"] == pytest.approx(float(expected), abs=1e-3)
    assert "auc" not in counted([]).scores(CLASSES)
    (names, *_) = found.table(CLASSES[:2]).columns
    assert list(names.cells)[-1] == "area under the ROC curve"


def saved(folder: Path, classes: tuple[LabelClass, ...], rng: np.random.Generator) -> list[str]:
    """A checkpoint and two held-out pages, as arguments of the command."""
    model = create_model("unet_small", pooling="max", num_classes=len(classes))
    Checkpoint(
        network="unet_small",
        pooling="max",
        classes=classes,
        input=InputPolicy(64, 16),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        state_dict=model.state_dict(),
    ).save(folder / "checkpoint.pt")
    for kind, shape in (("images", (20, 30, 3)), ("masks", (20, 30))):
        (folder / "val" / kind).mkdir(parents=True)
        for index in range(2):
            picture = Image.fromarray(rng.integers(0, 7, shape, np.uint8))
            picture.save(folder / "val" / kind / f"{index}.png")
    return ["evaluation", str(folder / "checkpoint.pt"), "--data", str(folder)]


def test_the_command_prints_every_class_and_the_speed(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    words = [*saved(tmp_path, PAGE_CLASSES, rng), "--band", "2"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    names = [label.name for label in PAGE_CLASSES] + ["mean", "pixel accuracy"]
    assert all(f"│ {name} " in result.output for name in names)
    assert "IoU within 2 px of a boundary" in result.output
    assert re.search(r"2 images, \d+\.\d ms an image \(median; PyTorch threads: ", result.output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "pages"], "expected the classes of the checkpoint, class 0, class 1; got"),
        (["--dataset", "holidays"], "expected one of .*fineshapes.*; got 'holidays'"),
    ],
)
def test_another_data_set_needs_the_same_classes(
    tmp_path: Path, rng: np.random.Generator, options: list[str], message: str
) -> None:
    words = [*saved(tmp_path, CLASSES[:2], rng), *options]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 1
    assert re.search(message, result.output)


def test_pages_have_to_be_somewhere(tmp_path: Path, rng: np.random.Generator) -> None:
    words = saved(tmp_path, PAGE_CLASSES, rng)[:2]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 1
    assert "--data: expected the folder" in result.output
