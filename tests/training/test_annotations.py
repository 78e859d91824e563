"""What label tools export becomes masks, by strings that their own tools wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from ppool.service.codecs.rle import coco_rle
from ppool.training.cli import app
from ppool.training.own import prepare
from ppool.training.shapes import coco_runs

Mask = NDArray[np.uint8]

# Of 48 x 40 pixels: a roof with a hole, and a wire across it.
ROOF = np.zeros((40, 48), bool)
ROOF[10:30, 5:35] = True
HOLE = np.zeros((40, 48), bool)
HOLE[20:25, 10:20] = True
WIRE = np.zeros((40, 48), bool)
WIRE[15:17] = True
# A disk of radius 9 about (20, 15), in 40 x 30 pixels by pycocotools.mask.encode, and in 48 x 40 by
# label_studio_sdk.converter.brush.encode_rle.
COCO_DISK = "i:1i08K2N2N2N2O00000O20N1000001N2N2N2N5HQ9"
STUDIO_DISK = bytes.fromhex(
    "00001e00391bff04cf008fff5580623ffd2e018afff4780633ffd0e018efff3f80643ffcf60190fff3d80643ff"
    "cf60190fff3b8064bffcee0190fff3d80643ffcf60190fff3d80643ffcfe018efff4380633ffd1e018afff4b80"
    "623ffd56011fff0bab0000"
)
ROOF_CORNERS = [5.0, 10.0, 35.0, 10.0, 35.0, 30.0, 5.0, 30.0]
WIRE_CORNERS = [0.0, 15.0, 48.0, 15.0, 48.0, 17.0, 0.0, 17.0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three photos without masks."""
    (tmp_path / "images").mkdir()
    for index in range(3):
        PIL.Image.new("RGB", (48, 40)).save(tmp_path / "images" / f"photo{index}.png")
    return tmp_path


def drawn(root: Path, name: str = "photo0") -> Mask:
    return np.asarray(PIL.Image.open(root / "masks" / f"{name}.png"))


def coco(*annotations: dict[str, Any], images: int = 2) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"upload/photo{i}.png", "height": 40, "width": 48}
            for i in range(images)
        ],
        "categories": [{"id": 9, "name": "roof"}, {"id": 4, "name": "wire"}],
        "annotations": [{"image_id": 0, **entry} for entry in annotations],
    }


def write(root: Path, document: Any) -> None:
    (root / "export.json").write_text(json.dumps(document), "utf-8")


def runs(plane: NDArray[np.bool_], order: str) -> list[int]:
    """Run lengths, zeros first: in order F of columns, C of rows."""
    flat = np.concatenate(([False], plane.ravel(order=order), [False]))  # type: ignore[call-overload]
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    ends = [0, *edges.tolist(), plane.size]
    lengths = np.diff(ends).tolist()
    return lengths[:-1] if lengths[-1] == 0 else lengths


def polygon_annotations() -> list[dict[str, Any]]:
    return [
        {"category_id": 4, "segmentation": [WIRE_CORNERS]},
        {"category_id": 9, "segmentation": [ROOF_CORNERS]},
    ]


def run_annotations(compressed: bool) -> list[dict[str, Any]]:
    def of(plane: NDArray[np.bool_]) -> dict[str, Any]:
        if compressed:
            return {"counts": coco_rle(plane.astype(np.uint8))[1], "size": [40, 48]}
        return {"counts": runs(plane, "F"), "size": [40, 48]}

    return [
        {"category_id": 4, "segmentation": of(WIRE)},
        {"category_id": 9, "segmentation": of(ROOF & ~HOLE), "iscrowd": 1},
    ]


@pytest.mark.parametrize(
    ("annotations", "hole"),
    [
        (polygon_annotations(), False),
        (run_annotations(compressed=False), True),
        (run_annotations(compressed=True), True),
    ],
    ids=["polygons", "runs", "runs as a string"],
)
def test_a_coco_export_is_drawn_small_things_on_top(
    root: Path, annotations: list[dict[str, Any]], hole: bool
) -> None:
    write(root, coco(*annotations))
    found = prepare(root)
    assert [entry.name for entry in found.classes] == ["background", "wire", "roof"]
    truth = np.where(ROOF & ~(HOLE & hole), 2, 0)
    truth[WIRE] = 1
    assert (drawn(root) == truth).all()
    assert not drawn(root, "photo1").any()
    # Nobody looked at the third photo: it is not background, but nothing.
    assert found.left_out == ["photo2.png"]
    assert not (root / "masks" / "photo2.png").exists()


def test_a_string_of_pycocotools_is_read() -> None:
    y, x = np.mgrid[:30, :40]
    disk = (x - 20) ** 2 + (y - 15) ** 2 <= 81
    assert (coco_runs(COCO_DISK, (30, 40))((30, 40)) == disk).all()


def test_looking_twice_leaves_the_masks_alone(root: Path) -> None:
    write(root, coco(*polygon_annotations()))
    first = prepare(root)
    PIL.Image.fromarray(np.eye(40, 48, dtype=np.uint8)).save(root / "masks" / "photo0.png")
    second = prepare(root)
    assert second.drawn is None
    assert first.drawn == root / "export.json"
    assert second.splits == first.splits
    assert second.classes == first.classes
    assert drawn(root).sum() == 40


def test_the_command_says_what_it_drew_and_left_out(root: Path) -> None:
    write(root, coco(*polygon_annotations()))
    said = CliRunner().invoke(app, ["init", str(root)], catch_exceptions=False).output
    said = "".join(said.split())
    assert "masksfromexport.json;deleteittodrawanew" in said
    assert "leftout1imagesthattheexportdoesnotname:photo2.png" in said


def test_classes_txt_decides_the_order(root: Path) -> None:
    (root / "classes.txt").write_text("ground\nroof\nwire\n")
    write(root, coco(*polygon_annotations()))
    assert [entry.name for entry in prepare(root).classes] == ["ground", "roof", "wire"]
    assert drawn(root)[16, 20] == 2


def task(name: str, *results: dict[str, Any]) -> dict[str, Any]:
    sizes = {"original_width": 48, "original_height": 40}
    return {
        "data": {"image": f"/data/upload/3/0a1b2c3d-{name}"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {"result": [{**sizes, "value": value} for value in results]},
        ],
    }


def percent(corners: list[float]) -> list[list[float]]:
    return (np.reshape(corners, (-1, 2)) / (0.48, 0.40)).tolist()


BOX = {"x": 5 / 0.48, "y": 25.0, "width": 30 / 0.48, "height": 50.0, "rotation": 0}
STUDIO = [
    {"points": percent(ROOF_CORNERS), "polygonlabels": ["roof"]},
    {"points": percent(WIRE_CORNERS), "polygonlabels": ["wire"]},
]


def test_label_studio_is_read_with_the_names_it_gives_uploads(root: Path) -> None:
    write(root, [task("photo0.png", *STUDIO), task("photo1.png")])
    found = prepare(root)
    assert [entry.name for entry in found.classes] == ["background", "roof", "wire"]
    truth = np.where(ROOF, 1, 0)
    truth[WIRE] = 2
    assert (drawn(root) == truth).all()


def test_label_studios_short_form_is_read(root: Path) -> None:
    sizes = {"original_width": 48, "original_height": 40}
    entries = [{**sizes, **BOX, "rectanglelabels": ["roof"]}, {**sizes, **STUDIO[1]}]
    write(root, [{"image": "s3://bucket/photo0.png", "tag": entries, "id": 3},
                 {"image": "https://host/photo1.png?x=y", "id": 4}])  # fmt: skip
    prepare(root)
    assert drawn(root)[12, 6] == 1
    assert drawn(root)[16, 40] == 2


def test_label_studios_brush_is_read(root: Path) -> None:
    value = {"format": "rle", "rle": [*STUDIO_DISK], "brushlabels": ["roof"]}
    write(root, [task("photo0.png", value), task("photo1.png")])
    prepare(root)
    y, x = np.mgrid[:40, :48]
    assert (drawn(root) == ((x - 20) ** 2 + (y - 15) ** 2 <= 81)).all()


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels>
  <label><name>background</name><color>#000000</color></label>
  <label><name>roof</name><color>#AA3355</color></label>
  <label><name>wire</name><color>#ffff00</color></label>
</labels></job></meta>
<image id="0" name="folder/photo0.png" width="48" height="40">{shapes}</image>
<image id="1" name="photo1.png" width="48" height="40"/></annotations>"""


def shape(kind: str, label: str, **attributes: Any) -> str:
    written = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<{kind} label="{label}" source="manual" occluded="0" {written}></{kind}>'


def box_of(plane: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
    top, left = int(rows[0]), int(columns[0])
    part = plane[top : rows[-1] + 1, left : columns[-1] + 1]
    lengths = ", ".join(map(str, runs(part, "C")))
    return {"rle": lengths, "left": left, "top": top,
            "width": part.shape[1], "height": part.shape[0]}  # fmt: skip


CVAT_ROOF: dict[str, Callable[[], str]] = {
    "mask": lambda: shape("mask", "roof", **box_of(ROOF & ~HOLE)),
    "polygon": lambda: shape("polygon", "roof", points="5,10;35,10;35,30;5,30", z_order=0),
    "box": lambda: shape("box", "roof", xtl=5, ytl=10, xbr=35, ybr=30),
    "turned box": lambda: shape("box", "roof", xtl=10, ytl=5, xbr=30, ybr=35, rotation=90),
}


@pytest.mark.parametrize("kind", CVAT_ROOF)
def test_cvat_is_read_with_its_colours_and_levels(root: Path, kind: str) -> None:
    # Below the roof, though it is the smaller.
    wire = shape("polygon", "wire", points="0,15;48,15;48,17;0,17", z_order=-1)
    (root / "annotations.xml").write_text(CVAT.format(shapes=CVAT_ROOF[kind]() + wire))
    found = prepare(root)
    assert [(entry.name, entry.color) for entry in found.classes] == [
        ("background", "#000000"), ("roof", "#aa3355"), ("wire", "#ffff00"),
    ]  # fmt: skip
    truth = np.where(WIRE, 2, 0)
    truth[ROOF & ~HOLE if kind == "mask" else ROOF] = 1
    assert (drawn(root) == truth).all()


def test_an_ellipse_is_round(root: Path) -> None:
    ellipse = shape("ellipse", "roof", cx=20.5, cy=15.5, rx=9, ry=6)
    (root / "annotations.xml").write_text(CVAT.format(shapes=ellipse))
    prepare(root)
    y, x = np.mgrid[:40, :48]
    inside = ((x - 20) / 9) ** 2 + ((y - 15) / 6) ** 2 <= 1
    assert (drawn(root) == inside).all()


FAULTS: list[tuple[Any, str]] = [
    ({}, "expected COCO's images, categories and annotations, got no 'categories'"),
    (coco({"category_id": 9, "segmentation": []}), "as of a box alone; export polygons or masks"),
    (
        coco({"category_id": 9, "segmentation": {"counts": [5], "size": [40, 48]}}),
        "run lengths of 5 pixels where there are 1920",
    ),
    (
        coco({"category_id": 9, "segmentation": {"counts": [960], "size": [20, 48]}}),
        "photo0.png: annotations of 48 x 20 pixels for a photo of 48 x 40",
    ),
    (
        coco({"category_id": 9, "segmentation": {"counts": [1920], "size": [48, 40]}}),
        "of 40 x 48 pixels for a photo of 48 x 40; the photo's EXIF turns it",
    ),
    (coco(images=0), "expected names of files in images, got others: none at all"),
    (coco(*polygon_annotations(), images=1), "expected at least 2 images, to hold one out, got 1"),
    ([{"data": {"text": "hello"}}], "a task without a photo's name, only ['text']"),
    ([3], "expected Label Studio's tasks with results"),
]


@pytest.mark.parametrize(("document", "complaint"), FAULTS)
def test_what_does_not_fit_is_explained_and_nothing_written(
    root: Path, document: Any, complaint: str
) -> None:
    write(root, document)
    with pytest.raises((ValueError, OSError)) as refused:
        prepare(root)
    assert complaint in str(refused.value)
    assert sorted(path.name for path in root.iterdir()) == ["export.json", "images"]


def test_an_unknown_class_and_two_exports_are_refused(root: Path) -> None:
    write(root, coco(*polygon_annotations()))
    (root / "classes.txt").write_text("ground\nroof\n")
    with pytest.raises(ValueError, match=r"classes of classes.txt, ground, roof, got also wire"):
        prepare(root)
    (root / "other.xml").write_text("<annotations/>")
    with pytest.raises(ValueError, match=r"expected one export, got export.json, other.xml"):
        prepare(root)
    (root / "export.json").unlink()
    with pytest.raises(ValueError, match="no <image>; export the task as 'CVAT for images"):
        prepare(root)
