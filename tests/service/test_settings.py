"""Where settings come from and what a bad one says."""

from pathlib import Path

import pytest

from ppool.service.settings import load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ppool.toml"
    path.write_text('host = "file"\nport = 1\nworkers = 1\n')
    return path


def test_command_line_beats_environment_beats_file_beats_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPOOL_PORT", "2")
    monkeypatch.setenv("PPOOL_WORKERS", "2")
    settings = load_settings(file, workers=3, name=None)
    assert (settings.max_images, settings.host) == (32, "file")
    assert (settings.port, settings.workers) == (2, 3)


def test_a_bad_value_names_key_value_and_what_was_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PPOOL_WORKERS", "many")
    with pytest.raises(
        ValueError, match=r"setting workers \(PPOOL_WORKERS\): expected a valid integer.*got 'many'"
    ):
        load_settings()


def test_a_bad_value_is_told_once_and_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPOOL_DEVICES", "gpu")
    monkeypatch.setenv("PPOOL_PORT", "http")
    with pytest.raises(ValueError, match="PORT") as raised:
        load_settings()
    assert "(PPOOL_DEVICES): expected cpu, or GPUs as cuda:0, cuda:1, got 'gpu'" in str(
        raised.value
    )
    assert len(str(raised.value).splitlines()) == 2


def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ppool.toml"
    path.write_text("worker = 3\n")
    with pytest.raises(ValueError, match="did you mean PPOOL_WORKERS"):
        load_settings(path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PPOOL_API_KEY", "did you mean PPOOL_API_KEYS?"),
        ("ppool_max_pixel", "did you mean PPOOL_MAX_PIXELS?"),
        ("PPOOL_ZZZ", "`ppool serve --help` lists all"),
    ],
)
def test_an_unknown_variable_is_an_error_that_keeps_its_value_secret(
    name: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "secret")
    with pytest.raises(ValueError, match=f"setting {name}: there is none of that name") as raised:
        load_settings()
    assert str(raised.value).endswith(hint)
    assert "secret" not in str(raised.value)


def test_what_kubernetes_and_other_parts_of_ppool_set_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_a_service = {
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
        "PORT": "tcp://10.0.0.7:80",
        "PORT_80_TCP": "tcp://10.0.0.7:80",
        "PORT_80_TCP_PROTO": "tcp",
        "PORT_80_TCP_PORT": "80",
        "PORT_80_TCP_ADDR": "10.0.0.7",
    }
    for name, value in of_a_service.items():
        monkeypatch.setenv(f"PPOOL_{name}", value)
        monkeypatch.setenv(f"PPOOL_CANARY_{name}", value)
    for name in ("PPOOL_ISA", "PPOOL_LIBRARY", "PPOOL_CUDA_LIBRARY", "PPOOL_CONFIG"):
        monkeypatch.setenv(name, "")
    assert load_settings().port == 8000


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a TOML file, got .*nowhere.toml"):
        load_settings(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("content", [b"port: 8000", b"name = '\xff'"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"settings file: expected TOML in '.*settings\.toml'; "):
        load_settings(file)


@pytest.mark.parametrize("keys", [",", "  ", " , "])
def test_a_list_of_nothing_is_not_taken_for_no_keys(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    monkeypatch.setenv("PPOOL_API_KEYS", keys)
    with pytest.raises(ValueError, match=r"PPOOL_API_KEYS\): expected values with commas"):
        load_settings()


def test_an_empty_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ppool.toml"
    path.write_text('api_keys = ["key", ""]\n')
    with pytest.raises(ValueError, match=r"setting api_keys .* at least 1"):
        load_settings(path)


@pytest.mark.parametrize("name", ["PPOOL_REQUEST_TIMEOUT_SECONDS", "PPOOL_DRAIN_DELAY_SECONDS"])
def test_times_are_finite(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "inf")
    with pytest.raises(ValueError, match=rf"{name}\): expected a finite number"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]
