"""Detail-preserving pooling in training: tap by tap, its gradient worked out by hand.

Autograd over the elements of all windows at once took twice the time and nine times the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ppool.window import Window

__all__ = ["detail_preserving"]

# What a detail is at least, as the authors released it.
_LEAST = 1e-3


class _Taps:
    """The elements of all windows, one view of the padded input for each place in the window.

    Attributes:
        padded: The input with zeros around it.
        views: [N, C, H_out, W_out] each.
        inside: Where each is in the input, 1 or 0; none if all are.
        count: How many of a window are.
    """

    def __init__(self, x: Tensor, window: Window) -> None:
        plane = (x.shape[-2], x.shape[-1])
        (top, left), (bottom, right) = window.padding, window.end_padding(*plane)
        self.around = (left, right, top, bottom)
        self._window, self._size = window, window.output_size(*plane)
        self.padded = F.pad(x, self.around)
        self.views = self.of(self.padded)
        self.inside: list[Tensor] = []
        self.count: Tensor | int = len(self.views)
        if any(self.around):
            self.inside = self.of(F.pad(torch.ones_like(x[:1, :1]), self.around))
            self.count = torch.stack(self.inside).sum(0)

    def of(self, padded: Tensor) -> list[Tensor]:
        """The same places of another padded tensor."""
        w, (height, width) = self._window, self._size
        return [
            padded[:, :, top : top + w.stride[0] * (height - 1) + 1 : w.stride[0]][
                ..., left : left + w.stride[1] * (width - 1) + 1 : w.stride[1]
            ]
            for top in range(0, w.kernel[0] * w.dilation[0], w.dilation[0])
            for left in range(0, w.kernel[1] * w.dilation[1], w.dilation[1])
        ]

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        """Over the elements of each window that are inside."""
        total = torch.zeros_like(values[0])
        for place, value in enumerate(values):
            if self.inside:
                total.addcmul_(value, self.inside[place])
            else:
                total.add_(value)
        return total.div_(self.count)

    def cleared(self, value: Tensor, place: int) -> Tensor:
        """``value``, in place set to 0 outside."""
        return value.mul_(self.inside[place]) if self.inside else value


def detail_preserving(x: Tensor, floor: Tensor, power: Tensor, window: Window) -> Tensor:
    """Each window's mean, weighted by ``floor + (d_i / mean(d)) ** power``.

    ``d_i`` is as :class:`ppool.models.poolings.DPPool2d` has it.

    Shape:
        ``x`` [N, C, H, W], ``floor`` and ``power`` [C, 1, 1]; [N, C, H_out, W_out].
    """
    y: Tensor = _DetailPreserving.apply(x, floor, power, window)  # type: ignore[no-untyped-call]
    return y


def _pooled(x: Tensor, floor: Tensor, power: Tensor, window: Window) -> Tensor:
    taps = _Taps(x, window)
    _, details, log_mean = _details(taps)
    above, below = torch.zeros_like(log_mean), torch.zeros_like(log_mean)
    for place, detail in enumerate(details):
        weight = detail.log_().sub_(log_mean).mul_(power).exp_().add_(floor)
        taps.cleared(weight, place)
        above.addcmul_(weight, taps.views[place])
        below.add_(weight)
    return above.div_(below)


def _details(taps: _Taps) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """How far each element is from its window's mean, ``d_i`` of that, and the log of its mean."""
    mean = taps.mean(taps.views)
    away = [view - mean for view in taps.views]
    details = [distance.square().add_(_LEAST) for distance in away]
    return away, details, taps.mean(details).log_()


class _DetailPreserving(torch.autograd.Function):
    """Image by image: what one needs then stays in the processor's cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, floor: Tensor, power: Tensor, window: Window) -> Tensor:
        """See :func:`detail_preserving`."""
        y = torch.cat([_pooled(image, floor, power, window) for image in torch.split(x, 1)])
        ctx.window = window
        ctx.save_for_backward(x, floor, power, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of all but the window."""
        x, floor, power, y = ctx.saved_tensors
        images = zip(torch.split(x, 1), torch.split(y, 1), torch.split(grad, 1), strict=True)
        found = [_gradients(image, floor, power, ctx.window) for image in images]
        dx, dfloor, dpower = zip(*found, strict=True)
        of_floor, of_power = (
            torch.cat(parts).sum((0, 2, 3)).view_as(floor) for parts in (dfloor, dpower)
        )
        return torch.cat(dx), of_floor, of_power, None


def _gradients(
    image: tuple[Tensor, Tensor, Tensor], floor: Tensor, power: Tensor, window: Window
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image's input, result and gradient: in the input, and by window in the parameters.

    ``dy/dx_i`` has the weight's share, ``w_i / sum(w)``, and three parts more: ``w_i`` depends on
    ``d_i``, on the mean of all and, by both, on the window's mean.
    """
    x, y, grad = image
    taps = _Taps(x, window)
    away, details, log_mean = _details(taps)
    logs = [detail.log().sub_(log_mean) for detail in details]
    shares = [(log * power).exp_() for log in logs]
    weights = [taps.cleared(share + floor, place) for place, share in enumerate(shares)]
    dfloor, dpower, of_details, of_mean, total = (torch.zeros_like(log_mean) for _ in range(5))
    for weight in weights:
        total.add_(weight)
    grad = grad / total
    dx = torch.zeros_like(taps.padded)
    outcome = taps.of(dx)
    for place, view in enumerate(taps.views):
        dweight = taps.cleared((view - y).mul_(grad), place)
        dfloor.add_(dweight)
        dlog = dweight.mul_(shares[place])
        dpower.addcmul_(dlog, logs[place])
        of_details.add_(dlog.mul_(power))
        slope = dlog.mul_(away[place]).div_(details[place]).mul_(2)
        of_mean.sub_(slope)
        outcome[place].add_(slope.addcmul_(grad, weights[place]))
    of_details.mul_(-2).div_(log_mean.exp_()).div_(taps.count)
    of_mean.div_(taps.count)
    for place, distance in enumerate(away):
        part = torch.addcmul(of_mean, of_details, distance)
        outcome[place].add_(taps.cleared(part, place))
    left, right, top, bottom = taps.around
    height, width = dx.shape[-2:]
    return dx[..., top : height - bottom, left : width - right], dfloor, dpower
