"""Small networks exported and run, with native kernels and portable ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppool import PPool2d, export
from ppool._library import custom_ops_library
from ppool.export import _export, _trace, export_model
from ppool.export._assemble import lint
from ppool.metadata import LabelClass, ModelMetadata
from ppool.onnx_ops import DOMAIN
from ppool.reference import resize_argmax_reference
from ppool.runtime import ALPHA_SWITCH, LOGITS_SWITCH, MASK_SIZE, Session, make_session
from ppool.service.models import shipped_model

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
CLASSES = ["paper", "ink", "desk", "rule"]


def lively(pool: PPool2d) -> PPool2d:
    """Spread the exponents: at step 0 they are all alike."""
    nn.init.uniform_(pool.point_weight, -0.2, 0.2)
    nn.init.uniform_(pool.point_bias, 1, 20)
    return pool


class Network(nn.Module):
    """Three P-poolings, none like another, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.pool1 = lively(PPool2d(6, 2, offset_scale=2.0))
        nn.init.uniform_(self.pool1.get_buffer("offset"), 0.1, 1)
        self.middle = nn.ModuleDict(
            {
                "conv": nn.Conv2d(6, 8, 3, padding=1),
                "pool2": lively(PPool2d(8, 3, 2, 1, ceil_mode=True, signed=True)),
                "pool3": lively(PPool2d(8, (2, 3), 1, (1, 1), dilation=(1, 2), input_scale=1.0)),
            }
        )
        self.head = nn.Conv2d(8, len(CLASSES), 1)
        nn.init.normal_(self.stem[1].running_mean)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool1(self.stem(x))
        for layer in self.middle.values():
            y = layer(y)
        logits: Tensor = self.head(y)
        return logits


@torch.no_grad()
def balance(network: Network) -> None:
    """Centre the logits, so that every class wins somewhere."""
    network.eval()
    logits = network(torch.randn(2, 3, 64, 64))
    network.head.bias -= logits.mean((0, 2, 3))
    network.train()


@dataclass(frozen=True)
class Exported:
    network: nn.Module
    path: Path
    description: ModelMetadata


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(1)
    network = Network()
    balance(network)
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    description = export_model(
        network,
        path,
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        multiple=16,
        max_side=512,
        training={"seed": 1},
    )
    return Exported(network.eval(), path, description)


@pytest.fixture(scope="module", params=["native", "portable"])
def session(request: pytest.FixtureRequest, exported: Exported) -> Session:
    if request.param == "native" and custom_ops_library() is None:
        pytest.skip("the native library is not built")
    made = make_session(exported.path, use_native=request.param == "native")
    assert made.kernels == request.param, made.reason
    return made


def photos(count: int, height: int, width: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(count * height + width)
    return random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def outputs(session: Session) -> list[str]:
    return ["mask", *(stage.output for stage in session.metadata.stages)]


@torch.no_grad()
def by_pytorch(network: nn.Module, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Mask and alpha maps, computed with no help from the exporter."""
    maps = {}

    def keep(name: str) -> Any:
        def hook(pool: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
            assert isinstance(pool, PPool2d)
            maps[f"alpha/{name}"] = pool.alpha(inputs[0]).numpy()

        return hook

    handles = [
        layer.register_forward_hook(keep(path.rpartition(".")[2]))
        for path, layer in network.named_modules()
        if isinstance(layer, PPool2d)
    ]
    x = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    logits = network((x - mean) / std)
    for handle in handles:
        handle.remove()
    full = nn.functional.interpolate(logits, image.shape[1:3], mode="bilinear")
    return {"mask": full.argmax(1).numpy(), **maps}


@pytest.mark.parametrize("size", [(1, 32, 48), (3, 48, 32), (2, 37, 53), (1, 96, 160)])
def test_the_file_answers_as_pytorch_does(
    exported: Exported, session: Session, size: tuple[int, int, int]
) -> None:
    image = photos(*size)
    found = dict(
        zip(outputs(session), session.run(outputs(session), {"image": image}), strict=True)
    )
    expected = by_pytorch(exported.network, image)
    assert found.keys() == expected.keys()
    assert found["mask"].dtype == np.uint8
    assert found["mask"].shape == size
    assert np.count_nonzero(found["mask"] != expected["mask"]) <= 1
    assert len(np.unique(found["mask"])) > 1
    for name in outputs(session)[1:]:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-3)
        assert np.ptp(found[name]) > 1


def test_asking_for_alpha_never_changes_the_mask(session: Session) -> None:
    image = photos(2, 64, 48)
    alone = session.run(["mask"], {"image": image})[0]
    beside = session.run(outputs(session), {"image": image})[0]
    np.testing.assert_array_equal(beside, alone)


def test_an_image_gets_the_same_answer_alone_and_among_eight(session: Session) -> None:
    images = photos(8, 48, 64)
    together = session.run(outputs(session), {"image": images})
    for index in range(8):
        alone = session.run(outputs(session), {"image": images[index : index + 1]})
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_[index])


def test_the_file_describes_itself(exported: Exported, session: Session) -> None:
    assert session.metadata == exported.description
    assert session.metadata.name == "tiny"
    assert session.metadata.network == "Network"
    assert [label.name for label in session.metadata.classes] == CLASSES
    assert len({label.color for label in session.metadata.classes}) == len(CLASSES)
    assert session.metadata.training == {"seed": 1}
    stages = [(s.name, s.output, s.channels, s.stride) for s in session.metadata.stages]
    assert stages == [
        ("pool1", "alpha/pool1", 6, 2),
        ("pool2", "alpha/pool2", 8, 4),
        ("pool3", "alpha/pool3", 8, 4),
    ]


def test_each_pooling_is_one_node_and_batch_norm_is_folded(exported: Exported) -> None:
    model = onnx.load(exported.path)
    nodes = Counter(node.op_type for node in model.graph.node)
    assert nodes["PPoolUnit"] == 3
    assert nodes["ResizeArgMax"] == 1
    assert nodes["BatchNormalization"] == 0
    assert nodes["If"] == 4  # the alpha maps and the logits
    assert {body.name for body in model.functions} == {"PPoolUnit", "ResizeArgMax"}
    assert [entry.name for entry in model.graph.input] == [
        "image",
        MASK_SIZE,
        ALPHA_SWITCH,
        LOGITS_SWITCH,
    ]


def test_no_path_of_the_exporting_machine_is_in_the_file(exported: Exported) -> None:
    assert str(Path(__file__).parents[2]).encode() not in exported.path.read_bytes()
    for path in (exported.path, shipped_model()):
        assert b"stack_trace" not in path.read_bytes()


def test_without_the_switch_no_alpha_map_is_computed(session: Session) -> None:
    feeds = {"image": photos(1, 32, 32), ALPHA_SWITCH: np.array(False)}
    results = session.session.run(outputs(session), feeds)
    assert [result.shape for result in results[1:]] == [(0, 6, 0, 0), (0, 8, 0, 0), (0, 8, 0, 0)]


def test_a_mask_of_another_size_is_made_of_scores(session: Session) -> None:
    feeds = {"image": photos(2, 32, 48), **session.sized(83, 61)}
    mask, logits = session.run(["mask", "logits"], feeds)
    assert len(np.unique(mask)) > 1
    assert np.count_nonzero(mask != resize_argmax_reference(logits, (83, 61))) <= 1


def test_the_lint_names_a_node_that_lists_too_many_outputs(exported: Exported) -> None:
    model = onnx.load(exported.path)
    node = next(node for node in model.graph.node if node.domain == DOMAIN)
    node.output.append("surplus")
    with pytest.raises(ValueError, match=f"{node.name}: expected 1, got 2"):
        lint(model)


def test_the_lint_names_a_node_that_leaves_an_attribute_out(exported: Exported) -> None:
    model = onnx.load(exported.path)
    node = next(node for node in model.graph.node if node.op_type == "PPoolUnit")
    del node.attribute[0]
    with pytest.raises(ValueError, match=f"{node.name}: expected"):
        lint(model)


def test_a_network_without_ppool_has_mask_and_logits_only(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.MaxPool2d(2))
    classes = [LabelClass(0, "no", "#000000"), LabelClass(1, "yes", "#ffffff")]
    path = tmp_path / "plain.onnx"
    description = export_model(
        network, path, classes=classes, mean=MEAN, std=STD, name="plain one", multiple=16
    )
    session = make_session(path)
    assert description.stages == ()
    assert session.metadata.name == "plain one"
    assert session.metadata.classes == tuple(classes)
    image = photos(1, 32, 32)
    found = session.run(["mask"], {"image": image})[0]
    assert np.count_nonzero(found != by_pytorch(network, image)["mask"]) <= 1
    assert [entry.name for entry in session.session.get_outputs()] == ["mask", "logits"]
    (logits,) = session.run(["logits"], {"image": image})
    assert logits.shape == (1, 2, 16, 16)
    assert np.count_nonzero(found != resize_argmax_reference(logits, (32, 32))) <= 1


def test_a_file_that_disagrees_with_pytorch_never_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    other = _export.Pipeline(nn.Conv2d(3, 2, 1), _export.Normalisation(MEAN, STD))
    trace = _export.trace
    monkeypatch.setattr(_export, "trace", lambda _, *rest: trace(other, *rest))
    with pytest.raises(export.VerificationError, match="mask for an image") as raised:
        export_model(
            nn.Conv2d(3, 2, 1),
            tmp_path / "wrong.onnx",
            classes=["a", "b"],
            mean=MEAN,
            std=STD,
        )
    assert any(entry.agrees is False for entry in raised.value.comparisons)
    assert list(tmp_path.iterdir()) == []


def test_the_network_itself_is_left_as_it_was(exported: Exported) -> None:
    pools = [layer for layer in exported.network.modules() if isinstance(layer, PPool2d)]
    assert len(pools) == 3
    assert all(parameter.requires_grad for parameter in exported.network.parameters())


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = PPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.pool(x))
        return y


class _Answering(nn.Module):
    """One channel, in whatever it is that others put it into."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Conv2d(3, 1, 3, 2, 1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x))


@dataclass
class _Answer:
    logits: Tensor
    loss: None = None


ANSWERS: list[Callable[[Tensor], Any]] = [
    lambda y: {"out": y, "aux": -y},
    lambda y: (y, -y),
    _Answer,
    lambda y: y[:, 0],
]


@pytest.mark.parametrize("wrap", ANSWERS)
def test_scores_are_found_in_what_others_answer(wrap: Callable[[Tensor], Any]) -> None:
    x = torch.zeros(2, 3, 8, 8)
    network = _Answering(wrap)
    torch.testing.assert_close(_trace.scores_of(network(x)), network.layer(x))


def test_one_channel_is_foreground_above_its_threshold(tmp_path: Path) -> None:
    network = _Answering(ANSWERS[0]).eval()
    path = tmp_path / "model.onnx"
    about = export_model(network, path, classes=["ink"], mean=MEAN, std=STD, threshold=0.2)
    assert (about.head, [entry.name for entry in about.classes]) == (
        "threshold",
        ["background", "ink"],
    )
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    x = (image.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
        :, None, None
    ]
    fine = torch.nn.functional.interpolate(network.layer(x), (64, 64), mode="bilinear")
    truth = (fine[:, 0] > 0.2).numpy()
    (mask,) = make_session(path).run(["mask"], {"image": image.numpy()})
    assert 0.1 < truth.mean() < 0.9
    assert np.count_nonzero(mask != truth) <= 1


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (nn.Conv2d(3, 3, 1), {"classes": ["a"]}, "classes: expected 3"),
        (nn.Conv2d(3, 1, 1), {"classes": ["a", "b", "c"]}, "classes: expected 2"),
        (nn.Flatten(), {}, r"logits \[N, K, h, w\]"),
        (nn.Conv2d(3, 2, 1), {"std": (1, 0, 1)}, "std: expected positive"),
        (nn.Conv2d(3, 2, 1), {"mean": (1, 1)}, "mean: expected 3 values"),
        (nn.Conv2d(3, 2, 1), {"max_side": 8}, "multiple"),
        (_Twice(), {"classes": ["a", "b", "c"]}, "2 calls of 'pool'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    network: nn.Module, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"classes": ["a", "b"], "mean": MEAN, "std": STD} | changes
    with pytest.raises(ValueError, match=message):
        export_model(network, tmp_path / "model.onnx", **arguments)
    assert list(tmp_path.iterdir()) == []
