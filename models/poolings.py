"""The learned poolings that P-pooling is compared with (Section 4.1, Baselines).

Each is written over the elements of its windows, so that overlapping and padded windows follow the
same formula as the published 2x2 ones. Positions outside the input belong to no window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ppool.models.detail_preserving import detail_preserving
from ppool.window import Window

__all__ = ["DPPool2d", "GatedPool2d", "LpPool2d"]


def _windows(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """The k elements of each window and which of them are inside the input.

    Shape:
        ``x`` is [N, C, H, W]; the results are [N, C, k, H_out, W_out], 0 outside, and bool
        [1, 1, k, H_out, W_out].
    """
    plane = (x.shape[-2], x.shape[-1])
    (top, left), (bottom, right) = window.padding, window.end_padding(*plane)
    shape = (window.kernel[0] * window.kernel[1], *window.output_size(*plane))

    def elements(values: Tensor) -> Tensor:
        padded = F.pad(values, (left, right, top, bottom))
        columns = F.unfold(padded, window.kernel, window.dilation, 0, window.stride)
        return columns.view(*values.shape[:2], *shape)

    return elements(x), elements(torch.ones_like(x[:1, :1])) > 0


def _mean(values: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside, values, 0).sum(2) / inside.sum(2)


class GatedPool2d(nn.Module):
    """Gated max-average pooling, layer-wise (Lee et al., AISTATS 2016, Section 3.2).

    ``y = g max(x_i) + (1 - g) mean(x_i)`` with ``g = sigmoid(sum_i w_i x_i)``: one mask ``w`` of
    the window's size for all channels of the layer, which is all it learns. The mask starts at
    zero, halfway between the two poolings, where its own gradient is not zero.

    Shape:
        [N, C, H, W] to [N, C, H_out, W_out], sized as ``torch.nn.MaxPool2d``.
    """

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window
        self.mask = nn.Parameter(torch.zeros(window.kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x``."""
        w = self.window
        if w.dilation != (1, 1):  # torch averages no dilated windows
            values, inside = _windows(x, w)
            gate = (values * self.mask.view(-1, 1, 1)).sum(2).sigmoid()
            largest = values.masked_fill(~inside, -torch.inf).amax(2)
            return gate * largest + (1 - gate) * _mean(values, inside)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self._mixed(x.float())
        return self._mixed(x)

    def _mixed(self, x: Tensor) -> Tensor:
        """As windows would have it, in a fifth of the time a training step took with them."""
        w = self.window
        (top, left), (bottom, right) = w.padding, w.end_padding(x.shape[-2], x.shape[-1])
        kernel = self.mask.expand(x.shape[1], 1, *w.kernel)
        padded = F.pad(x, (left, right, top, bottom))
        gate = F.conv2d(padded, kernel, None, w.stride, groups=x.shape[1]).sigmoid()
        largest = F.max_pool2d(x, w.kernel, w.stride, w.padding, ceil_mode=w.ceil_mode)
        mean = F.avg_pool2d(x, w.kernel, w.stride, w.padding, w.ceil_mode, count_include_pad=False)
        return gate * largest + (1 - gate) * mean


class DPPool2d(nn.Module):
    """Detail-preserving pooling, symmetric and lite (Saeedan et al., CVPR 2018, Section 3).

    With ``m`` the mean of the window and ``d_i = (x_i - m) ** 2 + 0.001``, the result is the mean
    of ``x_i`` weighted by ``exp(a) + (d_i / mean(d)) ** (exp(b) / 2)``: the more an element differs
    from its surroundings, the more it counts. ``a`` (at most 10) and ``b`` are learned for each
    channel and start uniform in +-1 / sqrt(C), as the authors released it. Their low-pass image is
    the mean of each 2x2 window; for other windows, the mean of the window is used alike.

    Shape:
        [N, C, H, W] to [N, C, H_out, W_out], sized as ``torch.nn.MaxPool2d``.
    """

    def __init__(self, channels: int, window: Window) -> None:
        super().__init__()
        self.window = window
        spread = channels**-0.5
        self.offset = nn.Parameter(torch.empty(channels).uniform_(-spread, spread))
        self.exponent = nn.Parameter(torch.empty(channels).uniform_(-spread, spread))

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x``."""
        floor = self.offset.clamp(max=10).exp().view(-1, 1, 1)
        power = (self.exponent.exp() / 2).view(-1, 1, 1)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            with torch.autocast(x.device.type, enabled=False):
                return detail_preserving(wide, floor, power, self.window)
        values, inside = _windows(x, self.window)
        detail = (values - _mean(values, inside).unsqueeze(2)).square() + 1e-3
        share = detail / _mean(detail, inside).unsqueeze(2)
        weight = share ** power.unsqueeze(1) + floor.unsqueeze(1)
        weight = torch.where(inside, weight, 0)
        return (weight * values).sum(2) / weight.sum(2)


class LpPool2d(nn.Module):
    """Lp norm pooling, ``y = (sum_i x_i ** p) ** (1 / p)`` (Section 3.6; supplement, Eq. 1).

    ``p`` is 3, the example of Figure 3(b), and not learned: its gradient explodes, as the
    supplement shows. The result can exceed every input, up to ``N ** (1 / p)`` times the largest.
    A window of zeros gives 0 and no gradient, where the formula would give 0 / 0.

    Shape:
        [N, C, H, W] to [N, C, H_out, W_out], sized as ``torch.nn.MaxPool2d``.

    Args:
        window: Where to pool.
        signed: Shift each plane of a sample by its minimum where that is negative (Eq. 2), since a
            norm needs ``x_i >= 0``; otherwise negative values count as 0.
    """

    p = 3.0

    def __init__(self, window: Window, *, signed: bool) -> None:
        super().__init__()
        self.window = window
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x``."""
        if not self.signed:
            return self._norm(x.clamp(min=0))
        shift = x.detach().amin((2, 3), keepdim=True).clamp(max=0)
        return self._norm(x - shift) + shift

    def _norm(self, x: Tensor) -> Tensor:
        values, _ = _windows(x, self.window)
        # Homogeneous of degree 1, so dividing by a constant first changes nothing but the range.
        largest = values.detach().amax(2)
        ratio = values / torch.where(largest > 0, largest, 1).unsqueeze(2)
        total = (ratio**self.p).sum(2)
        return largest * torch.where(total > 0, total, 1) ** (1 / self.p)
