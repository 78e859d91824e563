"""The playground: what it is made of, and that it works in a real browser."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ppool.service.http.media import MEDIA_TYPES
from ppool.service.http.options import ANSWERS
from tests.service.chromium import CHROMIUM, SEGMENTED, Page, chromium_page
from tests.service.harness import METADATA, Client, encoded, photo, tiny_model
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


def test_whatever_the_service_answers_with_can_be_saved() -> None:
    (kinds,) = re.findall(r"export const KINDS = {(.*?)\n};", SCRIPTS, re.DOTALL)
    assert set(ANSWERS) <= set(re.findall(r"^  (\w+): {", kinds, re.MULTILINE))
    pictures = {kind for kind in MEDIA_TYPES if kind.startswith("image/")}
    assert set(MEDIA_TYPES) - pictures <= set(re.findall(r'media: "(.*?)"', kinds))


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
    passed = []
    for _ in range(5):  # over the other sample and the picture to the legend
        browser.press("Tab")
        passed.append(browser.run("document.activeElement.id || document.activeElement.className"))
    assert passed == ["sample", "stage", "zoom-all", "zoom-in", ""]
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


def drop(page: Page, *names: str) -> None:
    """Drop the samples of these names, and any other as a file that is no photo."""
    page.run(
        "(async () => { const dataTransfer = new DataTransfer();"
        f"for (const name of {list(names)}) dataTransfer.items.add(new File("
        f"[{SAMPLES}.includes(name) ? await (await fetch(`playground/${{name}}`)).blob() : 'none'],"
        "name));"
        "dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true })) })()"
    )


IDLE = "document.querySelector('#busy').hidden"


def test_a_dropped_file_that_is_no_photo_is_explained_in_words(address: str, browser: Page) -> None:
    browser.open(f"{address}/")
    drop(browser, "notes.txt")
    browser.wait_for("!document.querySelector('#problem').hidden")
    assert texts(browser, "#problem strong") == ["notes.txt: Not an accepted image type"]
    assert texts(browser, "#problem p")[0].startswith("Send a JPEG, PNG, WebP, ")
    assert browser.run("document.querySelector('#result').hidden")
    assert browser.run("document.querySelector('#queue').hidden")


def test_several_photos_take_their_turns_and_each_has_its_state(
    address: str, browser: Page
) -> None:
    browser.open(f"{address}/")
    drop(browser, SAMPLES[0], "notes.txt", SAMPLES[1])
    browser.wait_for(f"{IDLE} && !document.querySelector('#result').hidden")
    assert texts(browser, "#photos .name") == [SAMPLES[0], "notes.txt", SAMPLES[1]]
    first, failed, last = texts(browser, "#photos .state")
    assert (first[-2:], failed, last[-2:]) == (" s", "failed", " s")
    size = "[document.querySelector('#canvas').width, document.querySelector('#canvas').height]"
    assert browser.run(size) == list(size_of(SAMPLES[0]))
    rows = "document.querySelectorAll('#photos button')"
    browser.run(f"{rows}[2].click()")
    browser.wait_for(f"document.querySelector('#status').textContent.startsWith('{SAMPLES[1]}')")
    assert browser.run(size) == list(size_of(SAMPLES[1]))
    assert browser.run(f"[...{rows}].map((row) => row.ariaCurrent)") == [None, None, "true"]
    browser.run(f"{rows}[1].click()")
    assert texts(browser, "#problem strong") == ["notes.txt: Not an accepted image type"]
    assert browser.run("document.querySelector('#result').hidden")
    browser.run(
        "URL.createObjectURL = () => 'data:,'; window.saved = [];"
        "HTMLAnchorElement.prototype.click = function () { saved.push(this.download) };"
        "document.querySelector('#save-all').click()"
    )
    stems = [name.removesuffix(".jpg") for name in SAMPLES]
    browser.wait_for("saved.length === 2")
    assert browser.run("saved") == [f"{stem}-mask.png" for stem in stems]
    browser.run("document.querySelector('#clear').click()")
    assert browser.run("document.querySelector('#queue').hidden")


def test_escape_cancels_and_a_photo_can_be_asked_for_again(address: str, browser: Page) -> None:
    browser.open(f"{address}/")
    browser.run(
        "window.real = fetch; window.fetch = (path, asked) => path.startsWith('segment') ?"
        "new Promise((_, fail) => asked.signal.addEventListener('abort', () =>"
        "fail(new DOMException('', 'AbortError')))) : real(path, asked)"
    )
    drop(browser, *SAMPLES)
    browser.wait_for(f"!{IDLE}")
    assert texts(browser, "#photos .state") == ["segmenting …", "waiting"]
    assert browser.run("document.querySelector('#progress').max") == 2
    browser.press("Escape")
    browser.wait_for(IDLE)
    assert texts(browser, "#photos .state") == ["cancelled", "cancelled"]
    assert texts(browser, "#status") == [f"{SAMPLES[0]}: cancelled."]
    browser.run("window.fetch = real; document.querySelector('#photos button').click()")
    browser.wait_for(SEGMENTED)
    assert texts(browser, "#photos .state")[1] == "cancelled"


def test_keys_wheel_buttons_and_two_fingers_zoom(address: str, browser: Page) -> None:
    def scale() -> str:
        return texts(browser, "#zoom-level")[0]

    def shift() -> list[float]:
        box = "document.querySelector('#canvas').getBoundingClientRect()"
        return list(browser.run(f"[{box}.left, {box}.top]"))

    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    browser.open(f"{address}/?sample=1")
    browser.wait_for(SEGMENTED)
    browser.run("document.querySelector('#stage').focus()")
    browser.press("+")
    assert scale() == "150 %"
    before = shift()
    browser.press("ArrowLeft")
    assert shift()[0] > before[0]
    browser.press("0")
    assert scale() == "100 %"
    browser.run("document.querySelector('#zoom-in').click()")
    assert scale() == "150 %"
    browser.run("document.querySelector('#zoom-out').click()")
    assert scale() == "100 %"
    assert browser.run("document.querySelector('#zoom-out').disabled")
    browser.run("document.querySelector('#stage').scrollIntoView()")
    left, top = (round(value) + 80 for value in shift())
    turn = {"type": "mouseWheel", "x": left, "y": top, "deltaX": 0, "deltaY": -100}
    browser.call("Input.dispatchMouseEvent", **turn, modifiers=2)
    assert scale() == "272 %"  # e to the power of 1
    assert [round(value) for value in shift()] != [left - 80, top - 80]
    browser.press("0")
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchEnd", None)):
        points = [] if apart is None else [
            {"x": left - apart, "y": top, "id": 0}, {"x": left + apart, "y": top, "id": 1}
        ]  # fmt: skip
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    assert scale() == "200 %"
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert browser.complaints == []


def test_run_lengths_are_read_as_the_mask_that_they_are(address: str, browser: Page) -> None:
    body = FILES[SAMPLES[0]].read_bytes()
    answer = httpx.post(f"{address}/segment", content=body)
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    json = {"Accept": "application/json"}
    found = httpx.post(f"{address}/segment?mask=rle", content=body, headers=json).json()
    height, width = mask.shape
    for step in (1, 3):
        script = (
            f"import('/playground/runs.js').then(({{ labelsOf }}) => [...labelsOf("
            f"{found['images'][0]['mask']}, {width // step}, {height // step})])"
        )
        rows = (np.arange(height // step) + 0.5) * height // (height // step)
        columns = (np.arange(width // step) + 0.5) * width // (width // step)
        labels = np.array(browser.run(script)).reshape(height // step, width // step)
        np.testing.assert_array_equal(labels, mask[np.ix_(rows.astype(int), columns.astype(int))])


def test_full_resolution_is_one_switch_and_has_no_exponents(browser: Page) -> None:
    with served("--workers", "1") as server:
        browser.open(f"{server.address}/?sample=1")
        browser.wait_for(SEGMENTED)
        assert not browser.run("document.querySelector('#tile-choice').hidden")
        assert browser.run("document.querySelector('[value=probability]') !== null")
        browser.run("document.querySelector('#tile').click()")
        browser.wait_for("document.querySelector('#curl').textContent.includes('mode=tile')")
        assert "alpha" not in texts(browser, "#curl")[0]
        assert browser.run("document.querySelector('#alpha').hidden")
        assert browser.complaints == []


def test_a_file_of_several_pages_has_a_field_for_the_page(address: str, browser: Page) -> None:
    scan = encoded(Image.fromarray(photo(40, 30)), "TIFF", save_all=True,
                   append_images=[Image.fromarray(photo(50, 20, seed=1))])  # fmt: skip
    browser.open(f"{address}/")
    browser.run(
        "(() => { const dataTransfer = new DataTransfer();"
        f"dataTransfer.items.add(new File([new Uint8Array({list(scan)})], 'scan.tif'));"
        "dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true })) })()"
    )
    browser.wait_for(SEGMENTED)
    assert texts(browser, "#pages") == ["of 2"]
    browser.run(
        "(() => { const page = document.querySelector('#page'); page.value = 2;"
        "page.dispatchEvent(new Event('change')) })()"
    )
    browser.wait_for("document.querySelector('#status').textContent.includes('50 × 20')")
    assert "page=2" in texts(browser, "#curl")[0]


def test_the_answer_chosen_is_saved_under_the_photos_name(address: str, browser: Page) -> None:
    browser.open(f"{address}/?sample=1")
    browser.wait_for(SEGMENTED)
    browser.run("URL.createObjectURL = (blob) => { window.saved = blob; return 'data:,'; }")
    stem = SAMPLES[0].removesuffix(".jpg")
    body = FILES[SAMPLES[0]].read_bytes()
    for kind, query, media, name in (
        ("mask", "", "image/png", f"{stem}-mask.png"),
        ("overlay", "?overlay=true", "image/png", f"{stem}-overlay.png"),
        ("cutout", "?cutout=1", "image/png", f"{stem}-cutout.png"),
        ("polygons", "?answers=polygons", "application/geo+json", f"{stem}.geojson"),
        ("coco", "?answers=coco", "application/json", f"{stem}-coco.json"),
        ("npz", "?alpha=full", "application/x-npz", f"{stem}.npz"),
    ):
        browser.run(
            f"document.querySelector('#kind').value = '{kind}';"
            "document.querySelector('#kind').dispatchEvent(new Event('change'))"
        )
        hidden = browser.run("document.querySelector('#of-class').hidden")
        assert hidden == (kind != "cutout")
        browser.run("document.querySelector('#save').click()")
        browser.wait_for(f"document.querySelector('#status').textContent === 'Saved {name}.'")
        wanted = httpx.post(f"{address}/segment{query}", content=body, headers={"Accept": media})
        assert browser.run("[saved.type, saved.size]") == [media, len(wanted.content)]
    assert browser.complaints == []
    kinds = "[...document.querySelectorAll('#kind option')].map((option) => option.value)"
    assert not {"probability", "planes"} & set(browser.run(kinds))  # which the model has not
    browser.run("window.fetch = () => Promise.reject(new TypeError('gone'))")
    browser.run("document.querySelector('#save').click()")
    browser.wait_for("document.querySelector('#status').textContent.startsWith('Not saved. The ')")


@pytest.fixture(scope="module")
def locked(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two models, behind a key."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "a.onnx").write_bytes(model_file.read_bytes())
    # Two classes of one colour, which a mask in colours does not tell apart.
    first, *others = METADATA.classes
    classes = (first, *(replace(label, color=first.color) for label in others))
    alike = replace(METADATA, name="other", classes=classes)
    (folder / "b.onnx").write_bytes(tiny_model(1, "other", metadata=alike))
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
    browser.wait_for("document.querySelector('#curl').textContent.includes('model=other')")
    assert texts(browser, "#model")[0].startswith("Model other ")
    assert "mask=rle" in texts(browser, "#curl")[0]
    highlight = "document.querySelectorAll('#legend button')[{}].dispatchEvent(new Event('focus'))"
    seen = set()
    for number, _ in enumerate(texts(browser, "#legend .name")):
        browser.run(highlight.format(number))
        seen.add(canvas(browser))
    assert len(seen) == len(texts(browser, "#legend .name")) > 1
    browser.open(f"{locked}/?sample=2")  # the tab remembers
    browser.wait_for(SEGMENTED)
    browser.run("sessionStorage.clear()")


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_screen(address: str, browser: Page, width: int) -> None:
    screen = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.call("Emulation.setDeviceMetricsOverride", **screen)
    browser.open(f"{address}/?sample=1")
    browser.wait_for(SEGMENTED)
    fits = (
        "(() => { const { scrollWidth, clientWidth } = document.documentElement;"
        "const right = (part) => document.querySelector(part).getBoundingClientRect().right;"
        "return scrollWidth === clientWidth && right('.facts *') <= right('main') + 1 })()"
    )
    assert browser.run(fits)
    assert browser.run(fits.replace(".facts *", ".save select"))
    drop(browser, f"{'long ' * 20}.txt", "more.txt")
    assert browser.run(fits)
    browser.wait_for(IDLE)
    browser.call("Emulation.clearDeviceMetricsOverride")
