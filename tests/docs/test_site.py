"""The documentation site builds, its links lead somewhere, and it loads nothing from outside."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.service.chromium import CHROMIUM, chromium_page

ROOT = Path(__file__).parents[2]
PACKAGES = ("ppool", "benchmarks")

# What a browser fetches by itself; an <a> is only followed by the reader.
FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src")}


class References(HTMLParser):
    """Collects what a page points to, and what can be pointed to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[tuple[str, str, str]] = []
        self.anchors = {""}
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in {"href", "src"} and value:
                self.targets.append((tag, name, value))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does it, elsewhere."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for package in PACKAGES:
        (folder / package).symlink_to(ROOT / package)
    for module in (["docs.reference"], ["zensical", "build", "--clean", "--strict"]):
        result = subprocess.run(
            [sys.executable, "-m", *module], cwd=folder, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, References]:
    """References by the page's path; Swagger UI makes its own when it runs."""
    found = (page for page in site.rglob("*.html") if page.name != "404.html")
    return {page.relative_to(site).as_posix(): References(page) for page in found}


def test_every_link_leads_somewhere(site: Path, pages: dict[str, References]) -> None:
    broken = []
    for page, references in pages.items():
        for _, _, target in references.targets:
            address = urlsplit(urljoin(f"http://site/{page}", target))
            if address.hostname != "site" or address.scheme != "http":
                continue
            path = unquote(address.path).lstrip("/")
            path = f"{path}index.html" if path.endswith("/") or not path else path
            anchors = pages[path].anchors if path in pages else {"", address.fragment}
            if not (site / path).is_file() or address.fragment not in anchors:
                broken.append((page, target))
    assert broken == []


def test_no_page_fetches_anything_from_outside(pages: dict[str, References]) -> None:
    assert len(pages) > 15
    outside = [
        (page, target)
        for page, references in pages.items()
        for tag, name, target in references.targets
        if (tag, name) in FETCHED and urlsplit(target).scheme in {"http", "https"}
    ]
    assert outside == []


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_pages_and_the_api(address: str, tmp_path: Path) -> None:
    with chromium_page(tmp_path) as page:
        page.open(f"{address}/reference/python/")
        page.wait_for("document.body.innerText.includes('replace_pooling')")
        assert page.complaints == []
        page.open(f"{address}/reference/api/index.html")
        page.wait_for("document.querySelectorAll('.opblock').length > 5")
        assert page.complaints == []
