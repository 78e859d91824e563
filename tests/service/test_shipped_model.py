"""The model that ships, on real photos it was never trained on, through the service."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.filters import threshold_sauvola

from benchmarks.pages import judge, pages_of, segmenter
from ppool.feeding import feed
from ppool.runtime import make_session
from ppool.service.models import shipped_model
from ppool.service.workers.inference import load_segmenter
from tests.service.harness import Client, encoded

INK = {"text", "handwriting", "line"}
PHOTOS = ("page", "astronaut", "coffee")


@pytest.fixture(scope="module")
def shipped(serving: Callable[..., Any]) -> Iterator[Client]:
    with serving(load_segmenter(shipped_model()), max_batch_size=8) as client:
        yield client


@pytest.fixture(scope="module")
def names() -> list[str]:
    return [label.name for label in load_segmenter(shipped_model()).model.classes]


def photo(name: str) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = getattr(data, name)()
    return pixels


def mask_of(client: Client, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    answer = client.segment(encoded(pixels), accept="image/png")
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert image.mode == "P"
    return np.asarray(image)


@pytest.mark.parametrize("name", PHOTOS)
def test_mask_has_the_size_of_the_photo(shipped: Client, name: str) -> None:
    assert mask_of(shipped, photo(name)).shape == photo(name).shape[:2]


def test_ink_on_a_real_page_agrees_with_sauvola(shipped: Client, names: list[str]) -> None:
    page = photo("page")
    found = np.isin(mask_of(shipped, page), [names.index(name) for name in INK])
    expected = page < threshold_sauvola(page, window_size=25, k=0.2)
    assert (found & expected).sum() / (found | expected).sum() >= 0.6


def test_the_int8_file_finds_the_same_ink(names: list[str]) -> None:
    page = encoded(photo("page"))
    masks = [segmenter(file)[0](page) for file in (shipped_model(), shipped_model("pages-int8"))]
    ours, int8 = (np.isin(mask, [names.index(name) for name in INK]) for mask in masks)
    assert (ours & int8).sum() / (ours | int8).sum() > 0.95
    assert shipped_model("pages-int8").stat().st_size < 0.4 * shipped_model().stat().st_size


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_a_plain_photo_is_picture(shipped: Client, names: list[str], name: str) -> None:
    mask = mask_of(shipped, photo(name))
    assert (mask == names.index("picture")).mean() > 0.8


@pytest.mark.parametrize("size", [(333, 250), (500, 701)])
@pytest.mark.parametrize("color", [(255, 255, 255), (228, 208, 160)])
def test_a_blank_sheet_is_paper_to_its_edges(
    shipped: Client, names: list[str], size: tuple[int, int], color: tuple[int, int, int]
) -> None:
    sheet = np.full((*size, 3), color, np.uint8)
    assert (mask_of(shipped, sheet) == names.index("paper")).all()


@pytest.mark.skipif("PPOOL_DIBCO" not in os.environ, reason="PPOOL_DIBCO names no folder of pages")
def test_ink_on_real_pages_beats_a_threshold(shipped: Client) -> None:
    def segment(file: bytes) -> NDArray[np.uint8]:
        answer = shipped.segment(file, accept="image/png")
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    pages = pages_of(Path(os.environ["PPOOL_DIBCO"]))[::6]
    in_process, classes = segmenter(shipped_model())
    file = pages[0].source.read_bytes()
    assert np.array_equal(segment(file), in_process(file))
    scores = judge(segment, classes, pages)["mean"]
    assert scores["model"] > max(scores["otsu"], scores["sauvola"])


def test_one_alpha_map_comes_back_for_every_pooling_stage(shipped: Client) -> None:
    answer = shipped.segment(encoded(photo("page")), "?alpha=maps", accept="application/json")
    stages = answer.json()["images"][0]["alpha"]
    assert [stage["stage"] for stage in stages] == [f"pool{i}" for i in range(1, 6)]
    for stage in stages:
        assert 0 <= stage["min"] <= stage["mean"] <= stage["max"] <= 35
        assert len(stage["channel_mean"]) == stage["shape"][0]


def test_its_card_is_that_of_the_documentation(shipped: Client) -> None:
    card = shipped.get(shipped.get("/models/pages").json()["card"]).text
    assert card == (Path(__file__).parents[2] / "docs" / "model.md").read_text("utf-8")


def test_asking_for_alpha_leaves_the_mask_alone(shipped: Client) -> None:
    body = encoded(photo("page"))
    plain, asked = (
        shipped.segment(body, query, accept="application/json").json()["images"][0]["mask"]
        for query in ("", "?alpha=maps")
    )
    assert plain == asked


RESIDENT = """
from pathlib import Path
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
"""
# Pages of memory that running the model took in each of two sessions.
TWO_SESSIONS = f"""
import numpy as np
from ppool.runtime import make_session
from ppool.service.models import shipped_model
{RESIDENT}
image = np.zeros((1, 512, 512, 3), np.uint8)
for _ in range(2):
    session = make_session(shipped_model())
    before = resident()
    session.run(["mask"], {{"image": image}})
    print(resident() - before)
"""
# Pages of memory that a batch of eight takes, and what is left of warming up for it and measuring.
WARM_AND_MEASURED = f"""
import numpy as np
from ppool.service.workers.inference import load_segmenter
from ppool.service.models import shipped_model
{RESIDENT}
segmenter = load_segmenter(shipped_model())
before = resident()
segmenter.session.run(["mask"], {{"image": np.zeros((8, 256, 256, 3), np.uint8)}})
print(resident() - before)
for seconds in (0.0, 1e-3):
    segmenter.probe(256, 256, 8, seconds)
print(resident() - before)
"""


def neighbours() -> NDArray[np.uint8]:
    """Eight different photos of one padded shape, the real ones among them."""
    metadata = load_segmenter(shipped_model()).model
    rng = np.random.default_rng(0)
    images = []
    for index in range(8):
        pixels = photo(PHOTOS[index % 3])
        pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels[..., :3]
        top, left = rng.integers(0, 60), rng.integers(0, 100)
        crop = pixels[top : top + 130, left : left + 270]
        rolled = np.ascontiguousarray(np.roll(crop, index, axis=2))
        images.append(feed(rolled, metadata.input, rolled.shape[:2]).image)
    return np.stack(images)


@pytest.mark.parametrize("native", [True, False], ids=["native", "portable"])
def test_alone_or_among_neighbours_the_mask_is_the_same_to_the_bit(native: bool) -> None:
    session = make_session(shipped_model(), use_native=native)
    with_more_threads = make_session(shipped_model(), use_native=native, intra_op_threads=3)
    images = neighbours()
    (together,) = session.run(["mask"], {"image": images})
    for index in range(len(images)):
        for lone in (session, with_more_threads):
            (alone,) = lone.run(["mask"], {"image": images[index : index + 1]})
            assert np.array_equal(alone[0], together[index])


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory is read from /proc"
)


def printed(script: str) -> list[int]:
    """The numbers that a script prints in a process of its own."""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in found.stdout.split()]


@needs_proc
def test_a_second_session_needs_no_arena_of_its_own() -> None:
    first, second = printed(TWO_SESSIONS)
    assert second < first / 3


@needs_proc
def test_warming_up_and_measuring_leaves_no_memory_behind() -> None:
    used, left = printed(WARM_AND_MEASURED)
    assert left < used / 3


def test_native_and_portable_kernels_differ_in_at_most_one_pixel_of_100_000() -> None:
    native = make_session(shipped_model())
    if native.kernels != "native":
        pytest.skip("the native library is not built")
    portable = make_session(shipped_model(), use_native=False)
    assert portable.kernels == "portable"
    different = total = 0
    for name in PHOTOS:
        pixels = photo(name)
        pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels
        feeds = {"image": feed(pixels, native.metadata.input, pixels.shape[:2]).image[None]}
        masks = [session.run(["mask"], feeds)[0] for session in (native, portable)]
        different += int((masks[0] != masks[1]).sum())
        total += masks[0].size
    assert different <= total / 100_000


def test_tiles_of_a_page_agree_with_the_page_in_one_piece(shipped: Client) -> None:
    page = Image.fromarray(data.page()).convert("RGB").resize((1000, 500))
    wide = np.concatenate((np.asarray(page),) * 2, axis=1)
    assert shipped.get("/models").json()[0]["modes"] == ["resize", "tile"]
    answer = shipped.segment(encoded(wide), "?mode=tile")
    assert answer.status_code == 200
    tiled = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert tiled.shape == wide.shape[:2]
    # Far from the seam that windows of 1024 pixels leave, and from the page's double.
    assert np.mean(tiled[:, :600] == mask_of(shipped, np.asarray(page))[:, :600]) > 0.95
