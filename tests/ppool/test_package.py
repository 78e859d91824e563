"""The package as users import it."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

import ppool
from ppool.metadata import InputPolicy, LabelClass, ModelMetadata, Stage
from ppool.window import Window, pooled_size


def test_public_names_are_sorted_and_importable() -> None:
    assert ppool.__all__ == sorted(ppool.__all__)
    for name in ppool.__all__:
        assert getattr(ppool, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ppool3d'"):
        _ = ppool.ppool3d  # type: ignore[attr-defined]


def test_names_complete_before_they_are_used_and_types_are_shipped() -> None:
    code = "import ppool; assert set(ppool.__all__) <= set(dir(ppool)), dir(ppool)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (Path(ppool.__file__).parent / "py.typed").is_file()
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["ppool"]


def test_importing_the_package_leaves_torch_alone() -> None:
    code = "import ppool, sys; ppool.custom_ops_library(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pooled_size_equals_torch_for_every_small_window() -> None:
    import torch

    choices = product((1, 2, 5, 13), range(1, 6), range(1, 5), range(3), range(1, 4), (False, True))
    for size, kernel, stride, padding, dilation, ceil_mode in choices:
        if padding > kernel // 2:
            continue
        x = torch.zeros(1, 1, 1, size)
        pool = torch.nn.MaxPool2d(
            (1, kernel), (1, stride), (0, padding), (1, dilation), ceil_mode=ceil_mode
        )
        arguments = (size, kernel, stride, padding, dilation, ceil_mode)
        try:
            expected = pool(x).shape[-1]
        except RuntimeError:
            with pytest.raises(ValueError, match="too small"):
                pooled_size(*arguments)
        else:
            assert pooled_size(*arguments) == expected


def test_window_takes_the_arguments_of_torch_pooling() -> None:
    window = Window.of(3, None, [1, 0], 1)
    assert (window.kernel, window.stride, window.padding) == ((3, 3), (3, 3), (1, 0))


def metadata() -> ModelMetadata:
    return ModelMetadata(
        name="pages",
        network="unet_small",
        classes=(LabelClass(0, "paper", "#ffffff"), LabelClass(1, "ink", "#000080")),
        input=InputPolicy(max_side=512, multiple=16),
        stages=(Stage("pool1", "alpha/pool1", 16, 2, 1e-4, 35.0),),
        training={"seed": 3},
    )


def test_metadata_survives_its_json() -> None:
    assert ModelMetadata.from_json(metadata().to_json()) == metadata()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "null"])
def test_other_json_is_no_model_description(text: str) -> None:
    with pytest.raises(ValueError, match="not a ppool model description"):
        ModelMetadata.from_json(text)


def test_a_newer_format_says_update() -> None:
    with pytest.raises(ValueError, match="update ppool"):
        ModelMetadata.from_json(metadata().to_json().replace('"format": 1', '"format": 2'))


def test_classes_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="ids 0, 1, 2"):
        replace(metadata(), classes=(LabelClass(1, "a", "#000000"),))
