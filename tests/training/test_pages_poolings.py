"""The network that ships is trained alike with every pooling and judged on the same real pages."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import measure, pages_poolings


def pages(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, shape in (("images", (64, 64, 3)), ("masks", (64, 64))):
            (folder / split / kind).mkdir(parents=True)
            values = rng.integers(0, 200 if kind == "images" else 3, shape, np.uint8)
            Image.fromarray(values).save(folder / split / kind / "0.png")
    return folder


def test_every_pooling_is_trained_alike_judged_and_never_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, real = pages(tmp_path / "drawn"), tmp_path / "real"
    real.mkdir()
    paper = np.full((64, 96), 230, np.uint8)
    paper[20:30, 10:80] = 20
    Image.fromarray(paper).save(real / "DIBCO2009_H01_source.png")
    Image.fromarray(np.where(paper < 100, 0, 255).astype(np.uint8)).save(
        real / "DIBCO2009_H01_target.png"
    )
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    asked = {
        "folder": real,
        "output": tmp_path / "runs",
        "seeds": 1,
        "setting": ["iterations=1", "batch_size=1", "crop=64", "precision=float32"],
        "threads": 0,
        "store": "poolings",
    }
    pages_poolings.main(drawn, **asked)
    found = json.loads((tmp_path / "poolings.json").read_text())["results"]
    assert list(found["runs"]) == ["max", "gated", "ppool"]
    assert found["settings"]["iterations"] == 1
    for (run,) in found["runs"].values():
        assert 0 <= run["real mean F"] <= 100
        assert run["contests"] == {"DIBCO2009": run["real mean F"]}
    # What is finished is neither trained nor judged again.
    monkeypatch.setattr(pages_poolings, "judge", None)
    pages_poolings.main(drawn, **asked)
    assert json.loads((tmp_path / "poolings.json").read_text())["results"] == found
