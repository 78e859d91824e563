"""Are the kernels right? All operators against the reference, and what a GPU can get wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.problems import BRANCH, DTYPES, TOLERANCE, Gpu, Problem, arguments, problems
from ppool.reference import (
    alpha_backward_reference,
    alpha_reference,
    ppool2d_backward_reference,
    ppool2d_reference,
    resize_argmax_reference,
)
from ppool.window import Window

__all__ = ["against_reference", "on_a_gpu"]


def _wide(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().to(torch.float64).numpy()


def _share(found: Tensor, expected: NDArray[np.float64], allowed: float) -> float:
    """The largest error as a share of what is allowed; a NaN is never allowed."""
    error = np.abs(_wide(found) - expected).max(initial=0.0)
    return float(error / allowed) if np.isfinite(error) else float("inf")


def _shares(gpu: Gpu, case: Problem) -> dict[str, float]:
    """Errors of each operator's outputs, by name, as shares of the allowed."""
    x, alpha, grad = case.x, case.alpha, case.grad
    window = arguments(case.window)
    close = TOLERANCE[x.dtype] * max(float(np.abs(_wide(x)).max()), 1e-30)
    truth = ppool2d_reference(_wide(x), _wide(alpha), *window, signed=case.signed)
    shares = {"PPool y": _share(gpu.forward(x, alpha, case.window, case.signed), truth, close)}

    dx, dalpha = gpu.backward(grad, x, alpha, case.window, case.signed)
    true_dx, true_dalpha = ppool2d_backward_reference(
        _wide(grad), _wide(x), _wide(alpha), *window, signed=case.signed
    )
    # A window's slopes reach 1 + alpha, and 1000 where ratios are held at 1e-3 and alpha is 0.
    slopes = max(float(_wide(alpha).max()) + 1, 1000.0)
    shares["PPool dx"] = _share(dx, true_dx, TOLERANCE[x.dtype] * slopes)
    shares["PPool dalpha"] = _share(dalpha, true_dalpha, close)

    y = gpu.unit(x, case.parameters, case.window, case.signed)
    unit: tuple[Any, ...] = (_wide(x), *map(_wide, case.parameters))
    branch = asdict(BRANCH)
    true_alpha = alpha_reference(*unit, *window, **branch)
    truth = ppool2d_reference(_wide(x), true_alpha, *window, signed=case.signed)
    shares["PPoolUnit y"] = _share(y, truth, close)

    dx, parts = gpu.unit_backward(grad, x, case.parameters, case.window, case.signed)
    true_dx, true_dalpha = ppool2d_backward_reference(
        _wide(grad), _wide(x), true_alpha, *window, signed=case.signed
    )
    shares["PPoolUnit dx"] = _share(dx, true_dx, TOLERANCE[x.dtype] * 1000.0)
    _, *gradients = alpha_backward_reference(true_dalpha, *unit, *window, **branch)
    expected = np.concatenate([g.reshape(x.shape[1], -1) for g in gradients], 1)
    # Sums of float32 terms of both signs, whatever x is stored as.
    allowed = 1e-3 * max(float(np.abs(expected).max()), 1e-6)
    shares["PPoolUnit d_parameters"] = _share(parts.sum(0), expected, allowed)
    return shares


def _resize_disagreement(gpu: Gpu, dtype: torch.dtype) -> float:
    """Share of labels that differ from the reference by more than a rounding."""
    wrong = total = 0
    for shape, size in (((2, 7, 5, 6), (37, 41)), ((1, 21, 9, 9), (9, 9)), ((1, 3, 8, 8), (3, 5))):
        logits = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        labels = gpu.resize_argmax(logits.to(gpu.device), size).cpu().numpy()
        expected = resize_argmax_reference(_wide(logits), size)
        for n, row, column in np.argwhere(labels != expected):
            nudged = _wide(logits[n : n + 1]).copy()
            nudged[:, labels[n, row, column]] += 1e-5
            again = resize_argmax_reference(nudged, size)[0, row, column]
            wrong += int(again != labels[n, row, column])
        total += labels.size
    return wrong / total


def against_reference(gpu: Gpu) -> dict[str, Any]:
    """Worst error of every operator, output and element type, as a share of the allowed one."""
    worst: dict[str, tuple[float, str]] = {}
    for case in problems(gpu.device):
        kind = str(case.x.dtype).removeprefix("torch.")
        for output, share in _shares(gpu, case).items():
            key = f"{output}, {kind}"
            worst[key] = max(worst.get(key, (0.0, "")), (share, case.name))
    rows: dict[str, dict[str, Any]] = {
        key: {"share": round(share, 3), "case": name} for key, (share, name) in worst.items()
    }
    for dtype in DTYPES:
        share = _resize_disagreement(gpu, dtype)
        name = str(dtype).removeprefix("torch.")
        rows[f"ResizeArgMax labels, {name}"] = {"share": share, "case": "enlarge, keep, shrink"}
    failed = {key: row for key, row in rows.items() if not row["share"] <= 1}
    failed |= {key: row for key, row in rows.items() if "labels" in key and row["share"] > 0}
    return {"passed": not failed, "errors as a share of the tolerance": rows, "failed": failed}


def _everything(gpu: Gpu, case: Problem) -> list[Tensor]:
    """All outputs of all operators on one problem."""
    return [
        gpu.forward(case.x, case.alpha, case.window, case.signed),
        *gpu.backward(case.grad, case.x, case.alpha, case.window, case.signed),
        gpu.unit(case.x, case.parameters, case.window, case.signed),
        *gpu.unit_backward(case.grad, case.x, case.parameters, case.window, case.signed),
        gpu.resize_argmax(case.x, (31, 45)),
    ]


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(
        a.cpu().contiguous().view(torch.uint8).equal(b.cpu().contiguous().view(torch.uint8))
        for a, b in zip(first, second, strict=True)
    )


def _moved(tensor: Tensor) -> Tensor:
    """A copy that starts one element past an aligned address."""
    room = tensor.new_empty(tensor.numel() + 1)
    return room[1:].view(tensor.shape).copy_(tensor)


def _misaligned(gpu: Gpu, case: Problem) -> bool:
    parameters = [_moved(value) for value in case.parameters]
    parts = (_moved(case.x), _moved(case.alpha), _moved(case.grad))
    moved = Problem(case.name, case.window, case.signed, *parts, parameters)
    return _same(_everything(gpu, moved), _everything(gpu, case))


def _repeats(gpu: Gpu, case: Problem) -> bool:
    return _same(_everything(gpu, case), _everything(gpu, case))


def _other_stream(gpu: Gpu, case: Problem) -> bool:
    expected = _everything(gpu, case)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # A late input: kernels on the wrong stream would read it before it is there.
        late = torch.zeros_like(case.x)
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
        late.copy_(case.x)
        parts = (case.alpha, case.grad, case.parameters)
        found = _everything(gpu, Problem(case.name, case.window, case.signed, late, *parts))
    stream.synchronize()
    return _same(found, expected)


def _graph(gpu: Gpu, case: Problem) -> bool:
    expected = _everything(gpu, case)
    x = torch.zeros_like(case.x)
    parts = (case.alpha, case.grad, case.parameters)
    changing = Problem(case.name, case.window, case.signed, x, *parts)
    _everything(gpu, changing)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = _everything(gpu, changing)
    x.copy_(case.x)
    graph.replay()
    torch.cuda.synchronize()
    return _same(found, expected)


def _beyond_32_bits(gpu: Gpu) -> bool:
    """More than 2^31 elements: the last rows must be as if they were alone."""
    window, rows, width = Window.of(2), 2**16 + 64, 2**15 + 8
    x = torch.rand((1, 1, rows, width), dtype=torch.float16, device=gpu.device)
    alpha = torch.full((1, 1, rows // 2, width // 2), 3.0, dtype=x.dtype, device=gpu.device)
    tail = x[:, :, -64:].contiguous(), alpha[:, :, -32:].contiguous()
    whole = gpu.forward(x, alpha, window)[:, :, -32:]
    return _same([whole], [gpu.forward(*tail, window)])


def on_a_gpu(gpu: Gpu) -> dict[str, Any]:
    """Alignment, repetition, streams, graph capture and offsets beyond 32 bits."""
    cases = [case for case in problems(gpu.device) if "17x33" in case.name or "16x64" in case.name]
    checks: dict[str, Callable[[Gpu, Problem], bool]] = {
        "misaligned tensors give the same bits": _misaligned,
        "results repeat to the bit": _repeats,
    }
    if gpu.device == "cuda":
        checks["the current stream is used"] = _other_stream
        checks["calls can be captured in a CUDA graph"] = _graph
    failed = {
        name: [case.name for case in cases if not check(gpu, case)]
        for name, check in checks.items()
    }
    outcome = {name: not cases for name, cases in failed.items()}
    if gpu.device == "cuda" and torch.cuda.mem_get_info()[0] > 32 * 2**30:
        outcome["offsets beyond 32 bits"] = _beyond_32_bits(gpu)
    return {"passed": all(outcome.values()), "checks": outcome, "failed": failed}
