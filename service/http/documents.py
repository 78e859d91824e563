"""The documents of the Open Inference Protocol beside inference, and of Triton's extensions.

They are the same over HTTP and gRPC.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ppool.service.engine import Engine
from ppool.service.http.named import outputs
from ppool.service.http.tensors import INPUT
from ppool.service.models import Served
from ppool.service.statistics import Duration

__all__ = ["VERSION", "config", "index", "metadata", "server", "statistics"]

# Of every model.
VERSION = "1"

_PLATFORM = "onnx_onnxv1"
_EXTENSIONS = (
    *("binary_tensor_data", "classification", "model_configuration", "model_repository"),
    *("parameters", "statistics"),
)


def server() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "ppool", "version": version("ppool"), "extensions": [*_EXTENSIONS]}


def metadata(served: Served) -> dict[str, Any]:
    """Inputs and outputs of a model, as any client wants to know them."""
    return {
        "name": served.model.name,
        "versions": [VERSION],
        "platform": _PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": outputs(served.model),
    }


def config(engine: Engine, served: Served) -> dict[str, Any]:
    """A model as Triton's configuration has it; shapes are there without the batch."""

    def entry(tensor: dict[str, Any]) -> dict[str, Any]:
        kind = "STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]
        return {"name": tensor["name"], "data_type": f"TYPE_{kind}", "dims": tensor["shape"][1:]}

    about = metadata(served)
    instances = [
        {
            "name": f"{served.model.name}_{number}",
            "count": engine.pool.plan.workers,
            "kind": "KIND_CPU" if device == "cpu" else "KIND_GPU",
            "gpus": [] if device == "cpu" else [int(device.rpartition(":")[2])],
        }
        for number, device in enumerate(engine.settings.devices)
    ]
    classes = ",".join(label.name for label in served.model.classes)
    parameters = {"classes": classes, "sha256": served.model.sha256}
    return {
        "name": served.model.name,
        "platform": _PLATFORM,
        "backend": "ppool",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": engine.settings.max_images,
        "input": [entry(tensor) for tensor in about["inputs"]],
        "output": [entry(tensor) for tensor in about["outputs"]],
        "instance_group": instances,
        "default_model_filename": served.model.file,
        "parameters": {name: {"string_value": text} for name, text in parameters.items()},
    }


def statistics(engine: Engine, models: list[Served]) -> dict[str, Any]:
    """What was asked of each model since the server started."""
    return {"model_stats": [_statistics(engine, served) for served in models]}


def _statistics(engine: Engine, served: Served) -> dict[str, Any]:
    found = engine.metrics.statistics[served.model.name]
    stages = {
        "queue": "queue",
        "compute_input": "decode",
        "compute_infer": "infer",
        "compute_output": "encode",
    }
    return {
        "name": served.model.name,
        "version": VERSION,
        "last_inference": round(found.last_seconds * 1e3),
        "inference_count": found.images,
        "execution_count": sum(batches.count for batches in found.batches.values()),
        "inference_stats": {
            "success": _duration(found.success),
            "fail": _duration(found.fail),
            **{name: _duration(found.stages[stage]) for name, stage in stages.items()},
            "cache_hit": _duration(Duration()),
            "cache_miss": _duration(Duration()),
        },
        "batch_stats": [
            {"batch_size": images, "compute_infer": _duration(spent)}
            for images, spent in sorted(found.batches.items())
        ],
    }


def _duration(spent: Duration) -> dict[str, int]:
    return {"count": spent.count, "ns": round(spent.seconds * 1e9)}


def index(engine: Engine, *, ready: bool) -> list[dict[str, str]]:
    """The models there are, in service or not; only those in service if ``ready``."""
    entries = [
        {"name": name, "version": VERSION, "state": "READY", "reason": ""}
        for name in engine.registry.models
    ]
    if not ready:
        entries += [
            {"name": name, "version": VERSION, "state": "UNAVAILABLE", "reason": reason}
            for name, reason in engine.registry.unserved().items()
        ]
    return entries
