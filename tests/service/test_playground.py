"""The playground: what it is made of, and that it works in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.service.chromium import CHROMIUM, SEGMENTED, Page, chromium_page
from tests.service.harness import Client, encoded, photo, tiny_model
from tests.service.traffic import ROOT, served

FILES = {path.name: path for path in (ROOT / "ppool" / "service" / "playground").iterdir()}
SAMPLES = sorted(name for name in FILES if name.endswith(".jpg"))
SCRIPTS = "\n".join(FILES[name].read_text() for name in sorted(FILES) if name.endswith(".js"))
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".jpg": "image/jpeg"}


def size_of(sample: str) -> tuple[int, int]:
    with Image.open(FILES[sample]) as image:
        return image.size


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_served_as_what_it_is_and_may_load_nothing_from_outside(
    client: Client, name: str
) -> None:
    answer = client.get("/" if name == "index.html" else f"/playground/{name}")
    assert answer.content == FILES[name].read_bytes()
    assert answer.headers["content-type"].split(";")[0] == TYPES[FILES[name].suffix]
    assert answer.headers["cache-control"] == "no-cache"
    assert "default-src 'self';" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    if name not in SAMPLES:
        assert "://" not in answer.text


def test_the_samples_are_small_photos_and_each_has_a_button(client: Client) -> None:
    page = client.get("/").text
    assert re.findall(r'data-file="([^"]+)"', page) == SAMPLES
    for name in SAMPLES:
        assert len(client.get(f"/playground/{name}").content) <= 60_000
        assert min(size_of(name)) >= 400


def test_the_scripts_read_only_fields_that_the_answers_have(client: Client) -> None:
    body = encoded(photo())
    result = client.segment(body, "?alpha=maps", accept="application/json").json()["images"][0]
    about = client.get("/models").json()[0]
    answers: dict[str, dict[str, Any]] = {
        "result": result,
        "area": result["classes"][0],
        "stage": result["alpha"][0],
        "timing": result["timing_ms"],
        "about": about,
        "model": about,
        "problem": client.segment(b"broken").json(),
    }
    for variable, document in answers.items():
        read = set(re.findall(rf"\b{variable}\.(\w+)", SCRIPTS))
        assert read, f"no script reads {variable}"
        assert read <= set(document), variable


def test_the_scripts_look_up_only_elements_that_the_page_has(client: Client) -> None:
    wanted = set(re.findall(r'(?:byId|copyOf)\("([\w-]+)"\)', SCRIPTS))
    assert wanted <= set(re.findall(r'\bid="([\w-]+)"', client.get("/").text))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with chromium_page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def address(model_file: Path) -> Iterator[str]:
    with served(str(model_file)) as server:
        yield server.address


def texts(page: Page, selector: str) -> list[str]:
    found = f"[...document.querySelectorAll({selector!r})].map((element) => element.textContent)"
    return list(page.run(found))


def canvas(page: Page) -> str:
    return str(page.run("document.querySelector('#canvas').toDataURL()"))


def test_a_sample_by_address_shows_mask_legend_alpha_plots_timing_and_command(
    address: str, browser: Page
) -> None:
    browser.open(f"{address}/?sample=1")
    browser.wait_for(SEGMENTED)
    assert set(texts(browser, "#legend .name")) <= {"dark", "middle", "bright"}
    shares = [float(text.removesuffix(" %")) for text in texts(browser, "#legend .share")]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert texts(browser, "#stages h3") == ["pool1", "pool2"]
    assert texts(browser, "#timing dt") == ["decode", "queue", "infer", "encode"]
    bars = browser.run(
        "[...document.querySelectorAll('.plot .channels')]"
        ".map((path) => path.getAttribute('d').split('M').length - 1)"
    )
    assert bars == [3, 3]
    (command,) = texts(browser, "#curl")
    assert f"{address}/segment?alpha=maps" in command
    assert f"{address}/playground/{SAMPLES[0]}" in command
    assert texts(browser, "#model")[0].startswith("Model tiny (threshold), ")
    size = "[document.querySelector('#canvas').width, document.querySelector('#canvas').height]"
    assert browser.run(size) == list(size_of(SAMPLES[0]))
    assert browser.complaints == []


def test_the_keyboard_reaches_a_sample_a_class_and_an_alpha_map(
    address: str, browser: Page
) -> None:
    browser.open(f"{address}/")
    for key in ("Tab", "Tab", "Enter"):
        browser.press(key)
    browser.wait_for(SEGMENTED)
    whole = canvas(browser)
    for _ in SAMPLES:  # over the other sample to the legend
        browser.press("Tab")
    assert browser.run("document.activeElement.closest('#legend') !== null")
    alone = canvas(browser)
    assert alone != whole
    browser.run("document.querySelector('.map').focus()")
    assert canvas(browser) == whole
    browser.press("Enter")
    assert canvas(browser) not in {whole, alone}
    assert texts(browser, "#shown") == ["Alpha map of pool1 over the photo"]
    assert browser.run("document.querySelector('.map').getAttribute('aria-pressed')") == "true"
    browser.run("document.querySelector('#to-mask').click()")
    assert canvas(browser) == whole
    assert browser.complaints == []


def test_a_dropped_file_that_is_no_photo_is_explained_in_words(address: str, browser: Page) -> None:
    browser.open(f"{address}/")
    browser.run(
        "(() => { const dataTransfer = new DataTransfer();"
        "dataTransfer.items.add(new File(['no photo'], 'notes.txt'));"
        "dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true })) })()"
    )
    browser.wait_for("!document.querySelector('#problem').hidden")
    assert texts(browser, "#problem strong") == ["notes.txt: Not an accepted image type"]
    assert texts(browser, "#problem p")[0].startswith("Send a JPEG, PNG, WebP, ")
    assert browser.run("document.querySelector('#result').hidden")


def test_the_answer_chosen_is_saved_under_the_photos_name(address: str, browser: Page) -> None:
    browser.open(f"{address}/?sample=1")
    browser.wait_for(SEGMENTED)
    browser.run("URL.createObjectURL = (blob) => { window.saved = blob; return 'data:,'; }")
    stem = SAMPLES[0].removesuffix(".jpg")
    body = FILES[SAMPLES[0]].read_bytes()
    for kind, query, media, name in (
        ("mask", "", "image/png", f"{stem}-mask.png"),
        ("overlay", "?overlay=true", "image/png", f"{stem}-overlay.png"),
        ("npz", "?alpha=full", "application/x-npz", f"{stem}.npz"),
    ):
        browser.run(f"document.querySelector('#kind').value = '{kind}'")
        browser.run("document.querySelector('#save').click()")
        browser.wait_for(f"document.querySelector('#status').textContent === 'Saved {name}.'")
        wanted = httpx.post(f"{address}/segment{query}", content=body, headers={"Accept": media})
        assert browser.run("[saved.type, saved.size]") == [media, len(wanted.content)]
    assert browser.complaints == []


@pytest.fixture(scope="module")
def locked(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two models, behind a key."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "a.onnx").write_bytes(model_file.read_bytes())
    (folder / "b.onnx").write_bytes(tiny_model(1, "other"))
    with served(str(folder), "--workers", "1", PPOOL_API_KEYS="secret") as server:
        yield server.address


def test_it_asks_for_the_key_once_and_lets_one_choose_the_model(locked: str, browser: Page) -> None:
    enter = (
        "(key) => { document.querySelector('#key').value = key;"
        "document.querySelector('#key-entry').requestSubmit() }"
    )
    asking = "!document.querySelector('#key-entry').hidden"
    browser.open(f"{locked}/?sample=1")
    browser.wait_for(asking)
    assert texts(browser, "#model") == [""]
    browser.run(f"({enter})('guess')")
    browser.wait_for(asking)
    browser.run(f"({enter})('secret')")
    browser.wait_for(SEGMENTED)
    assert not browser.run(asking)
    assert texts(browser, "#models option") == ["tiny", "other"]
    assert "$PPOOL_API_KEY" in texts(browser, "#curl")[0]
    assert "secret" not in texts(browser, "#curl")[0]
    choose = "(choice) => { choice.value = 'other'; choice.dispatchEvent(new Event('change')) }"
    browser.run(f"({choose})(document.querySelector('#models'))")
    browser.wait_for("document.querySelector('#model').textContent.startsWith('Model other ')")
    assert "model=other" in texts(browser, "#curl")[0]
    browser.open(f"{locked}/?sample=2")  # the tab remembers
    browser.wait_for(SEGMENTED)
    browser.run("sessionStorage.clear()")


def test_a_phone_scrolls_in_one_direction_only(address: str, browser: Page) -> None:
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    browser.open(f"{address}/?sample=1")
    browser.wait_for(SEGMENTED)
    assert browser.run("document.documentElement.scrollWidth") == 360
    browser.call("Emulation.clearDeviceMetricsOverride")
