"""What can be set: one frozen object; command line over environment over file over default."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, PlainValidator, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ppool.service.locations import ModelURL, model_place

__all__ = ["Settings", "describe_settings", "load_settings"]

PREFIX = "PPOOL_"

# Of the libraries and the command line; no settings of the service.
_OTHERS = frozenset({"CONFIG", "CUDA_LIBRARY", "ISA", "LIBRARY", "TENSORRT_INCLUDE"})

# For a Service called ppool, or ppool-anything, Kubernetes gives every pod PPOOL_SERVICE_HOST,
# PPOOL_SERVICE_PORT_HTTP, PPOOL_PORT=tcp://10.0.0.1:80, PPOOL_PORT_80_TCP_ADDR and so on.
_OF_KUBERNETES = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


T = TypeVar("T")


def _split(value: object) -> object:
    if isinstance(value, str):
        if not (parts := [part.strip() for part in value.split(",") if part.strip()]):
            # Nothing at all is "not set"; a list of nothing would be no keys, so open to everybody.
            raise ValueError("values with commas between them")
        return parts
    return value


Listed = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting of the service; in the environment each is ``PPOOL_`` and its name in capitals.

    Lists are written with commas in the environment. ``workers``, ``threads`` and
    ``max_batch_size`` are measured at start where they are not given.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", allow_inf_nan=False
    )

    model: Listed[Annotated[Path | ModelURL, PlainValidator(model_place)]] = Field(
        (),
        description="ONNX files of ppool export, folders of them, or URLs of s3://, gs://, "
        "https:// or oci://, at best with #sha256=...; pages-int8: the shipped one in int8; none: "
        "the shipped one",
    )
    model_cache: Path | None = Field(
        None, description="folder for models of URLs; none: ~/.cache/ppool/models"
    )
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="the only model's name; none: its own"
    )
    reload_seconds: float = Field(
        0.0, ge=0, description="look for changed models this often; 0: on SIGHUP only"
    )
    model_control: bool = Field(
        False, description="clients may load and unload models over /v2/repository"
    )
    host: str = Field(
        "127.0.0.1", description="address to listen on; :: is every one, of IPv4 and IPv6"
    )
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    uds: Path | None = Field(
        None, description="listen on this Unix socket instead, made or, if stale, replaced"
    )
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port for gRPC, with ppool[grpc]; 0 takes a free one"
    )
    api_keys: Listed[Annotated[SecretStr, Field(min_length=1)]] = Field(
        (), description="accept only these as Authorization: Bearer or X-API-Key; none: everybody"
    )
    cors_origins: Listed[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s*]+)$")]] = Field(
        (), description="origins whose pages may ask, as https://example.org, or *; none: no other"
    )

    label_studio_url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+(/\S*)?$",
        description="where Label Studio is, as http://labels:8080; /label-studio then answers it",
    )
    label_studio_key: SecretStr | None = Field(
        None, description="access token of Label Studio, to fetch its photos"
    )
    label_studio_origins: Listed[Annotated[str, Field(pattern=r"^https?://[^/\s*]+$")]] = Field(
        (), description="others that photos of tasks are fetched from, as https://example.org"
    )

    devices: Listed[Annotated[str, Field(pattern=r"^(cpu|cuda:\d+)$")]] = Field(
        ("cpu",), min_length=1, description="cpu, or GPUs as cuda:0, cuda:1"
    )
    workers: int | None = Field(None, ge=1, le=256, description="worker processes on each device")
    threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="threads inside one inference; set: a photo alone gets no more than that",
    )
    max_batch_size: int | None = Field(None, ge=1, le=64, description="images in one inference")
    lanes: int | None = Field(
        None,
        ge=1,
        le=64,
        description="batches under way in one worker; none: 1 on cpu, 3 on a GPU, so that it "
        "infers while others are decoded and encoded",
    )
    warm_shapes: Listed[Annotated[str, Field(pattern=r"^\d+x\d+$")]] = Field(
        (), description="WIDTHxHEIGHT of photos to warm up for; none: 256x256 or the model's only"
    )
    precision: Literal["exact", "auto"] = Field(
        "exact",
        description="auto: NAME-int8.onnx of ppool precision is served in place of NAME.onnx "
        "beside it where it is faster and says that it loses a point of mean IoU at most",
    )
    tune_seconds: float = Field(
        0.2, ge=0, le=60, description="time at start to measure what is not set; 0: do not"
    )

    max_requests: int = Field(256, ge=1, description="requests being answered at a time")
    queue_images: int = Field(256, ge=1, description="images waiting for a worker")
    queue_bytes: int = Field(
        2**30, ge=1, description="bytes they have once decoded, and of request bodies"
    )
    request_timeout_seconds: float = Field(30.0, gt=0, description="from first byte to answer")
    head_timeout_seconds: float = Field(
        10.0,
        gt=0,
        description="close connections where no whole head, or no taking of an answer, comes",
    )
    drain_delay_seconds: float = Field(
        0.0, ge=0, description="serve on after SIGTERM, for balancers to notice"
    )
    log_format: Literal["text", "json"] = Field("text", description="of the log on stderr")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least to log; debug: also answers of 400 and up, idle reloads"
    )
    log_requests: bool = Field(False, description="a line for every request, whatever its answer")

    max_body_bytes: int = Field(32 * 2**20, ge=1, description="size of a request")
    max_images: int = Field(32, ge=1, description="images in a request")
    # Pillow itself refuses more than 89,478,485 pixels.
    max_pixels: int = Field(64_000_000, ge=1, le=89_478_485, description="pixels of an image")
    max_side_pixels: int = Field(20_000, ge=1, description="longer side of an image")
    max_frames: int = Field(1000, ge=1, description="frames of an animation; the first is used")

    @property
    def on_gpu(self) -> bool:
        """Whether the devices are GPUs."""
        return self.devices[0] != "cpu"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then the TOML file."""
        return init_settings, _Environment(settings_cls), TomlConfigSettingsSource(settings_cls)


class _Environment(EnvSettingsSource):
    """The environment without what Kubernetes puts there by itself."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        found = self.env_vars.items()
        self.env_vars = {name: text for name, text in found if not _of_kubernetes(name, text)}


def describe_settings() -> Iterator[tuple[str, str, str]]:
    """Variable, default and description of every setting."""
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        yield PREFIX + name.upper(), "" if shown is None else str(shown), field.description or ""


def load_settings(file: Path | None = None, **given: Any) -> Settings:
    """Settings from the command line (``given``, ``None`` = not given), environment and ``file``.

    Raises:
        ValueError: naming the key, the value and what was expected.
    """
    if unknown := [name for name in os.environ if _unknown(name)]:
        raise ValueError("\n".join(f"setting {name}: {_no_such(name)}" for name in unknown))
    if file is not None and not file.is_file():
        raise ValueError(f"settings file: expected a TOML file, got {str(file)!r}")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return FromFile(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = {entry["loc"][0]: entry for entry in reversed(error.errors())}
        raise ValueError("\n".join(map(_explain, reversed(first.values())))) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"settings file: expected TOML in {str(file)!r}; {error}") from error


def _unknown(variable: str) -> bool:
    prefix, name = variable[: len(PREFIX)].upper(), variable[len(PREFIX) :].upper()
    known = name.lower() in Settings.model_fields or name in _OTHERS
    return prefix == PREFIX and not known and not _of_kubernetes(variable, os.environ[variable])


def _of_kubernetes(variable: str, value: str | None) -> bool:
    name = variable.upper().removeprefix(PREFIX)
    port = name == "PORT" or name.endswith("_PORT")
    return bool(_OF_KUBERNETES.fullmatch(name) or (port and _ADDRESS.match(value or "")))


def _no_such(variable: str) -> str:
    name = variable[len(PREFIX) :].lower()
    close = get_close_matches(name, Settings.model_fields, 1)
    hint = (
        f"did you mean {PREFIX}{close[0].upper()}?" if close else "`ppool serve --help` lists all"
    )
    return f"there is none of that name; {hint}"


def _explain(error: ErrorDetails) -> str:
    key = str(error["loc"][0])
    variable = f"{PREFIX}{key.upper()}"
    if error["type"] == "extra_forbidden":
        return f"setting {key} ({variable}): {_no_such(variable)}"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch":
        expected = Settings.model_fields[key].description or expected
    # Keys are secret, and so may be parts of a URL.
    secret = key.endswith(("_key", "_keys")) or (key == "model" and "://" in str(error["input"]))
    got = "" if secret else f", got {error['input']!r}"
    return f"setting {key} ({variable}): expected {expected}{got}"
