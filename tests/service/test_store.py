"""Models fetched from object stores, web servers and registries, and kept in a cache."""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import moto.server
import pytest
import trustme

from benchmarks.running import free_port
from ppool.service.locations import ModelURL, model_place
from ppool.service.settings import load_settings
from ppool.service.store import ModelPlaces, StoreError, Unreachable, objects, places, source, web
from tests.service.harness import tiny_model
from tests.service.stores import Shop, digest, shop
from tests.service.traffic import served, until

ONE, TWO = b"one model", b"another one"
Fetch = Callable[[str], dict[str, bytes]]


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Content of every file behind a URL, through one cache."""
    found = ModelPlaces(tmp_path / "cache")

    def fetch(url: str) -> dict[str, bytes]:
        files = found.files(model_place(url))
        assert all(path.is_relative_to(found.folder(model_place(url))) for path in files)
        return {path.name: path.read_bytes() for path in files}

    return fetch


@pytest.fixture(scope="module")
def moto_address() -> Iterator[str]:
    server = moto.server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto_address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket ``models``, and what is in the environment to read it."""
    httpx.post(f"{moto_address}/moto-api/reset").raise_for_status()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_REGION": "here"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_address)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", moto_address)
    client = boto3.client("s3", endpoint_url=moto_address, region_name="us-east-1")
    client.create_bucket(Bucket="models")
    return lambda key, body, acl="public-read": client.put_object(
        Bucket="models", Key=key, Body=body, ACL=acl
    )


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def web_server(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with shop(authority) as opened:
        yield opened


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shop]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with shop(None) as opened:
        yield opened


def named(registry: Shop, rest: str) -> str:
    return registry.address.replace("http://", "oci://") + rest


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_object_is_fetched_again_when_its_etag_has_changed(
    bucket: Any, tmp_path: Path, scheme: str
) -> None:
    bucket("a/x.onnx", ONE)
    found = ModelPlaces(tmp_path)
    url = model_place(f"{scheme}://models/a/x.onnx")
    [path] = found.files(url)
    assert path.read_bytes() == ONE
    before = path.stat()
    assert found.files(url) == [path]
    assert path.stat() == before
    bucket("a/x.onnx", TWO)
    assert found.files(url) == [path]
    assert path.read_bytes() == TWO


def test_a_folder_of_a_bucket_is_the_models_directly_in_it(bucket: Any, fetch: Fetch) -> None:
    bucket("a/x.onnx", ONE)
    bucket("a/y.onnx", TWO)
    bucket("a/notes.txt", b"")
    bucket("a/older/z.onnx", b"")
    assert fetch("s3://models/a/") == {"x.onnx": ONE, "y.onnx": TWO}
    boto3.client("s3", region_name="us-east-1").delete_object(Bucket="models", Key="a/x.onnx")
    assert fetch("s3://models/a/") == {"y.onnx": TWO}
    with pytest.raises(StoreError, match="no ONNX file"):
        fetch("s3://models/b/")


@pytest.mark.parametrize("url", ["s3://models/none.onnx", "s3://nobody/x", "gs://models/none.onnx"])
def test_an_object_that_does_not_exist_is_said_so(bucket: Any, fetch: Fetch, url: str) -> None:
    with pytest.raises(
        StoreError, match=rf"model {url}: there is no such object or bucket \(404\)"
    ):
        fetch(url)


def test_a_public_bucket_of_google_is_read_without_credentials(
    bucket: Any, fetch: Fetch, moto_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket("x.onnx", ONE)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    made = objects.store.GCSStore

    def elsewhere(name: str, *, config: Any, client_options: Any, **options: Any) -> Any:
        assert not config
        client_options["allow_http"] = True
        return made(
            name, config={"base_url": moto_address}, client_options=client_options, **options
        )

    monkeypatch.setattr(objects.store, "GCSStore", elsewhere)
    with pytest.raises(StoreError):
        fetch("gs://models/x.onnx")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert fetch("gs://models/x.onnx") == {"x.onnx": ONE}


def test_an_object_that_we_may_not_read_is_said_so(bucket: Any, fetch: Fetch) -> None:
    bucket("x.onnx", ONE, "private")
    assert fetch("s3://models/x.onnx") == {"x.onnx": ONE}
    with pytest.raises(StoreError, match=r"denied \(403\)"):
        fetch("gs://models/x.onnx")


def test_a_closed_store_leaves_what_was_fetched(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    bucket("x.onnx", ONE)
    url = model_place("s3://models/x.onnx")
    [path] = ModelPlaces(tmp_path).files(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    later = ModelPlaces(tmp_path)
    with pytest.raises(Unreachable) as caught:
        later.files(url)
    assert caught.value.kept == (path,)
    assert "127.0.0.1" not in str(caught.value)
    assert later.at_start(url) == (path,)
    assert "what was fetched before" in caplog.text
    with pytest.raises(Unreachable):
        ModelPlaces(tmp_path / "empty").at_start(url)


def test_a_file_of_a_web_server_is_fetched_once_for_each_etag(
    web_server: Shop, fetch: Fetch
) -> None:
    web_server.files["/m/x.onnx"] = ONE
    web_server.redirects["/latest"] = f"{web_server.address}/m/x.onnx"
    url = f"{web_server.address}/latest?key=hidden"
    assert fetch(url) == fetch(url) == {"latest": ONE}
    assert web_server.asked["/m/x.onnx", 200] == web_server.asked["/m/x.onnx", 304] == 1
    web_server.files["/m/x.onnx"] = TWO
    assert fetch(url) == {"latest": TWO}


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (401, "credentials", StoreError),
        (403, "denied", StoreError),
        (404, "no such file", StoreError),
        (418, "418", StoreError),
        (503, "503", Unreachable),
        (429, "429", Unreachable),
    ],
)
def test_what_a_web_server_refuses_is_said_without_what_is_secret(
    web_server: Shop, fetch: Fetch, status: int, said: str, kind: type[Exception]
) -> None:
    web_server.statuses["/x.onnx"] = status
    with pytest.raises(kind, match=said) as caught:
        fetch(f"{web_server.address}/x.onnx?signature=hidden")
    assert "x.onnx?..." in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("fault", ["stalled", "cut"])
def test_half_a_file_is_none(
    web_server: Shop, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, fault: str, tmp_path: Path
) -> None:
    web_server.files["/x.onnx"] = ONE
    url = f"{web_server.address}/x.onnx"
    fetch(url)
    monkeypatch.setattr(web, "READ_SECONDS", 0.2)
    web_server.files["/x.onnx"] = TWO * 1000
    getattr(web_server, fault).add("/x.onnx")
    with pytest.raises(Unreachable) as caught:
        fetch(url)
    assert [path.read_bytes() for path in caught.value.kept] == [ONE]
    [folder] = (tmp_path / "cache").iterdir()
    assert {path.name for path in folder.iterdir()} == {"x.onnx", "index.json", ".lock"}


def test_a_certificate_of_nobody_known_is_refused(
    web_server: Shop, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    web_server.files["/x.onnx"] = ONE
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Unreachable, match="certificate"):
        fetch(f"{web_server.address}/x.onnx")


def test_a_redirect_to_a_place_without_tls_is_not_followed(
    web_server: Shop, registry: Shop, fetch: Fetch
) -> None:
    registry.files["/x.onnx"] = ONE
    web_server.redirects["/x.onnx"] = f"{registry.address}/x.onnx"
    with pytest.raises(StoreError, match="without TLS"):
        fetch(f"{web_server.address}/x.onnx")
    assert not registry.asked


def test_a_pinned_file_is_asked_for_once_and_taken_only_if_it_is_the_one(
    web_server: Shop, fetch: Fetch
) -> None:
    web_server.files["/x.onnx"] = ONE
    url = f"{web_server.address}/x.onnx"
    with pytest.raises(StoreError, match=f"SHA-256 is {digest(ONE)}, not {digest(TWO)}"):
        fetch(f"{url}#sha256={digest(TWO)}")
    assert fetch(f"{url}#sha256={digest(ONE)}") == {"x.onnx": ONE}
    web_server.files["/x.onnx"] = TWO
    assert fetch(f"{url}#sha256={digest(ONE).upper()}") == {"x.onnx": ONE}
    assert fetch(f"{url}@sha256:{digest(TWO)}") == {"x.onnx": TWO}
    assert web_server.asked["/x.onnx", 200] == 3


def test_a_damaged_cache_is_fetched_anew(web_server: Shop, tmp_path: Path) -> None:
    web_server.files["/x.onnx"] = ONE
    url = model_place(f"{web_server.address}/x.onnx#sha256={digest(ONE)}")
    for damage in ("x.onnx", "index.json"):
        [path] = ModelPlaces(tmp_path).files(url)
        assert path.read_bytes() == ONE
        path.with_name(damage).write_bytes(b"{}")
    assert [path.read_bytes() for path in ModelPlaces(tmp_path).files(url)] == [ONE]


def test_many_at_once_fetch_it_once(web_server: Shop, tmp_path: Path) -> None:
    web_server.files["/x.onnx"] = ONE * 100_000
    url = model_place(f"{web_server.address}/x.onnx")
    found: list[bytes] = []

    def look() -> None:
        found.extend(path.read_bytes() for path in ModelPlaces(tmp_path).files(url))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ONE * 100_000] * 4
    assert web_server.asked["/x.onnx", 200] == 1


def test_what_is_being_fetched_is_given_up_at_the_end(web_server: Shop, tmp_path: Path) -> None:
    web_server.files["/x.onnx"] = bytes(2**22)
    found = ModelPlaces(tmp_path)
    found.close()
    with pytest.raises(StoreError, match="the service ends"):
        found.files(model_place(f"{web_server.address}/x.onnx"))


def test_a_folder_that_cannot_be_written_is_named(web_server: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = ModelPlaces(tmp_path / "file")
    with pytest.raises(StoreError, match="PPOOL_MODEL_CACHE sets: Not a directory"):
        found.files(model_place(f"{web_server.address}/x.onnx"))


def test_an_artifact_has_the_layers_that_are_models(registry: Shop, fetch: Fetch) -> None:
    registry.push("team/pages", "v1", {"x.onnx": ONE, "README.md": b"", "more/y.onnx": TWO})
    assert fetch(named(registry, "/team/pages:v1")) == {"x.onnx": ONE, "y.onnx": TWO}
    registry.push("team/pages", "v1", {"x.onnx": TWO, "y.onnx": TWO})
    assert fetch(named(registry, "/team/pages:v1")) == {"x.onnx": TWO, "y.onnx": TWO}
    # The same layer is not sent twice for the same file.
    assert registry.asked[f"/v2/team/pages/blobs/sha256:{digest(TWO)}", 200] == 2


def test_an_artifact_is_pinned_by_its_manifest_or_by_its_file(registry: Shop, fetch: Fetch) -> None:
    manifest = registry.push("pages", "latest", {"": ONE})
    registry.push("pages", "latest", {"": TWO})
    assert fetch(named(registry, "/pages")) == {"pages.onnx": TWO}
    assert fetch(named(registry, f"/pages:v7@sha256:{manifest}")) == {"pages.onnx": ONE}
    assert fetch(named(registry, f"/pages#sha256={digest(TWO)}")) == {"pages.onnx": TWO}
    with pytest.raises(StoreError, match="SHA-256"):
        fetch(named(registry, f"/pages#sha256={digest(ONE)}"))
    registry.files[f"/v2/pages/manifests/sha256:{manifest}"] += b" "
    with pytest.raises(StoreError, match="another manifest"):
        fetch(named(registry, f"/pages@sha256:{manifest}"))


def test_a_layer_that_is_not_what_its_digest_says_is_refused(registry: Shop, fetch: Fetch) -> None:
    registry.push("pages", "latest", {"x.onnx": ONE})
    registry.files[f"/v2/pages/blobs/sha256:{digest(ONE)}"] = TWO
    with pytest.raises(StoreError, match="SHA-256"):
        fetch(named(registry, "/pages"))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b'{"manifests": []}', "index"),
        (b"[1]", "no manifest"),
        (b'{"layers": [{"digest": "sha256:../../etc"}]}', "no manifest"),
        (b'{"layers": []}', "no layer"),
        (bytes(5 * 2**20), "4 MiB"),
    ],
)
def test_what_is_no_artifact_with_models_is_said_so(
    registry: Shop, fetch: Fetch, manifest: bytes, said: str
) -> None:
    registry.files["/v2/pages/manifests/latest"] = manifest
    with pytest.raises(StoreError, match=said):
        fetch(named(registry, "/pages"))


def test_a_registry_gets_the_password_of_docker_login(
    registry: Shop, fetch: Fetch, tmp_path: Path
) -> None:
    registry.push("pages", "latest", {"x.onnx": ONE})
    registry.token = "token"  # noqa: S105 - of a test
    registry.password = base64.b64encode(b"me:hidden").decode()
    url = named(registry, "/pages")
    with pytest.raises(StoreError, match="401"):
        fetch(url)
    host = registry.address.removeprefix("http://")
    logins = {"auths": {host: {"auth": registry.password}}}
    (tmp_path / "config.json").write_text(json.dumps(logins))
    assert fetch(url) == {"x.onnx": ONE}
    assert registry.asked["/token", 200] == 1


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed")
def test_a_real_registry_gives_what_was_pushed(tmp_path: Path, fetch: Fetch) -> None:
    port = free_port()
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nhttp: {{addr: 127.0.0.1:{port}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'data'}}}}}\n"
    )
    command = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    made = Shop()
    manifest = made.push("team/pages", "v1", {"x.onnx": ONE})
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: _answers(f"{address}/v2/", process))
            for path, content in made.files.items():
                _push(address, path, content)
            found = fetch(f"oci://127.0.0.1:{port}/team/pages:v1@sha256:{manifest}")
        finally:
            process.terminate()
            process.wait(30)
    assert found == {"x.onnx": ONE}


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        time.sleep(0.05)
        return False


def _push(address: str, path: str, content: bytes) -> None:
    if "/manifests/" in path:
        headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        httpx.put(address + path, content=content, headers=headers).raise_for_status()
        return
    start, _, sha256 = path.rpartition("/")
    opened = httpx.post(f"{address}{start}/uploads/").raise_for_status()
    place = httpx.URL(opened.headers["Location"]).copy_merge_params({"digest": sha256})
    httpx.put(place, content=content).raise_for_status()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://host/x", "s3://, gs://, https://, oci://"),
        ("ftp://me:hidden@host/x", "s3://, gs://, https://, oci://"),
        ("https://me:hidden@host/x", "without user and password"),
        ("https://host", "host or bucket and a path"),
        ("https:///x", "host or bucket and a path"),
        ("s3://models/x?hidden=1", "without ?"),
        ("https://host/folder/", "the URL of a file"),
        ("https://host:port/x", "a number as its port"),
        ("s3://models/x#sha256=12", "64 hexadecimal digits"),
        ("s3://models/x@sha256:hidden", "64 hexadecimal digits"),
        (f"s3://models/x/#sha256={'0' * 64}", "have no digest"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_repeating_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"setting model \(PPOOL_MODEL\)") as caught:
        load_settings(model=[text])
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_without_what_fetches_it_a_model_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'ppool\[store\]'"):
        ModelPlaces.check([model_place("s3://models/x.onnx")])


def test_a_url_and_its_place_show_nothing_secret() -> None:
    url = model_place("https://host/x.onnx?signature=hidden")
    assert isinstance(url, ModelURL)
    assert "hidden" not in f"{url} {url!r}"
    assert source.READ_SECONDS < 30  # a reload that stalls holds up the end of a process


def test_a_service_swaps_what_its_store_swaps_and_keeps_what_is_good(
    web_server: Shop, tmp_path: Path
) -> None:
    first, second = tiny_model(), tiny_model(seed=1)
    web_server.files["/x.onnx"] = first
    url = f"{web_server.address}/x.onnx?signature=hidden"
    settings = {"PPOOL_MODEL": url, "PPOOL_MODEL_CACHE": str(tmp_path / "cache")}
    settings |= {"PPOOL_WORKERS": "1", "PPOOL_RELOAD_SECONDS": "0.05"}
    with served(**settings) as server:

        def serves() -> str:
            [model] = server.get("/models").json()
            return str(model["sha256"])

        assert serves() == digest(first)
        assert not server.get("/models/tiny").json()["why_old"]
        web_server.files["/x.onnx"] = b"no model"
        failed = 'ppool_model_reloads_total{model="tiny",outcome="failed"}'
        until(lambda: server.metric(failed) or server.metric(failed.replace("tiny", "x")))
        assert serves() == digest(first)
        assert "cannot be served" in server.get("/models/tiny").json()["why_old"]
        web_server.files["/x.onnx"] = second
        until(lambda: serves() == digest(second))
        web_server.statuses["/x.onnx"] = 503
        web_server.asked.clear()
        until(lambda: web_server.asked["/x.onnx", 503] > 1)
        assert serves() == digest(second)
        assert "its store gave nothing" in server.get("/models/tiny").json()["why_old"]


@pytest.mark.parametrize("ill", ["away", "bad", "bad, then away", "half"])
def test_a_service_that_starts_anew_serves_the_last_file_that_was_good(
    ill: str, web_server: Shop, tmp_path: Path
) -> None:
    good = tiny_model()
    web_server.files["/x.onnx"] = good
    settings = {"PPOOL_MODEL": f"{web_server.address}/x.onnx", "PPOOL_WORKERS": "1"}
    settings |= {"PPOOL_MODEL_CACHE": str(tmp_path / "cache"), "PPOOL_RELOAD_SECONDS": "0.05"}
    with served(**settings) as server:
        assert server.get("/models/tiny").json()["sha256"] == digest(good)
        if ill == "bad, then away":  # it is fetched while the good one is in service
            web_server.files["/x.onnx"] = b"no model"
            until(lambda: server.get("/models/tiny").json()["why_old"])
    if ill == "bad":
        web_server.files["/x.onnx"] = b"no model"
    elif ill == "half":
        web_server.files["/x.onnx"] = tiny_model(seed=1)
        web_server.cut.add("/x.onnx")
    else:
        web_server.statuses["/x.onnx"] = 503
    with served(**settings) as server:
        about = server.get("/models/tiny").json()
        assert server.get("/readyz").status_code == 200
        assert about["sha256"] == digest(good)
        assert about["why_old"]
        # And the next that is good is taken.
        better = tiny_model(seed=2)
        web_server.statuses.clear()
        web_server.cut.clear()
        web_server.files["/x.onnx"] = better
        until(lambda: server.get("/models/tiny").json()["sha256"] == digest(better))
        assert not server.get("/models/tiny").json()["why_old"]
