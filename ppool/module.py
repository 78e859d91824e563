"""``PPool2d``: the P-pooling unit of Figure 1, a drop-in for ``torch.nn.MaxPool2d``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ppool import _fused, _library
from ppool.functional import alpha_map, ppool2d
from ppool.window import Window

__all__ = ["PPool2d"]


class PPool2d(nn.Module):
    """Polynomial pooling whose exponents a small side branch predicts (Section 3.5, Figure 1).

    The branch is a depthwise convolution with the pool's own window, a PReLU, a depthwise 1x1
    convolution and a clip: ``kernel height * width + 3`` parameters a channel. It starts with
    ``alpha == alpha_init`` everywhere.

    Shape:
        [N, C, H, W] to [N, C, H_out, W_out], sized as ``torch.nn.MaxPool2d``; see
        :func:`ppool.ppool2d`.

    Args:
        channels: C.
        kernel_size: As for :func:`ppool.ppool2d`, like the next four.
        stride: Step of the window; ``None`` is ``kernel_size``.
        padding: Positions added on each side, never counted.
        dilation: Step between the elements of a window.
        ceil_mode: Round the output size up.
        signed: Accept negative input (Eq. 2); right wherever no ReLU comes before the pool.
        input_scale: Factor on the branch's input (Section 4.1: 100).
        alpha_init: Exponent at the start (Section 4.1: a large one, 20, begins as max pooling).
        alpha_min: Lower clip; 0 lets the unit be exact average pooling.
        alpha_max: Upper clip, C in Section 3.5 (35 for VGG-16).
        detach_branch: Keep the branch's gradient out of the trunk, as Eq. 3 is written.
        alpha_gradient_scale: Factor on the gradient of alpha, which falls as 1 / alpha ** 2.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        *,
        signed: bool = False,
        input_scale: float = 100.0,
        alpha_init: float = 20.0,
        alpha_min: float = 1e-4,
        alpha_max: float = 35.0,
        detach_branch: bool = True,
        alpha_gradient_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= alpha_min <= alpha_init <= alpha_max:
            raise ValueError(
                "alpha: expected 0 <= alpha_min <= alpha_init <= alpha_max, got "
                f"{alpha_min!r}, {alpha_init!r}, {alpha_max!r}"
            )
        self.window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
        self.signed = signed
        self.input_scale = input_scale
        self.alpha_min = alpha_min
        self.alpha_max = alpha_max
        self.detach_branch = detach_branch
        self.alpha_gradient_scale = alpha_gradient_scale
        self.region = nn.Conv2d(channels, channels, self.window.kernel, groups=channels, bias=False)
        self.activation = nn.PReLU(channels, init=0.25)
        self.point_weight = nn.Parameter(torch.zeros(channels))
        self.point_bias = nn.Parameter(torch.full((channels,), float(alpha_init)))
        nn.init.kaiming_normal_(self.region.weight)

    @property
    def channels(self) -> int:
        """Number of input and output channels."""
        return self.region.out_channels

    def alpha(self, x: Tensor) -> Tensor:
        """The alpha map of ``x``, one exponent for each pooled element (Eq. 5)."""
        return alpha_map(
            x.detach() if self.detach_branch else x,
            *self._parameters_of_branch(),
            self.window,
            input_scale=self.input_scale,
            alpha_min=self.alpha_min,
            alpha_max=self.alpha_max,
        )

    def _parameters_of_branch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.region.weight, self.activation.weight, self.point_weight, self.point_bias

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``x``.

        Raises:
            ValueError: if ``x`` has other channels, or is on another device, than the unit.
        """
        # The native kernels are handed addresses, and read as many parameters as x has channels.
        if x.dim() not in {3, 4} or x.shape[-3] != self.channels:
            raise ValueError(
                f"x: expected [N, {self.channels}, H, W] or [{self.channels}, H, W], "
                f"got {list(x.shape)}"
            )
        if x.device != self.point_bias.device:
            raise ValueError(f"x: expected on {self.point_bias.device}, got on {x.device}")
        # Without gradients a GPU does the whole unit in one kernel; a compiled graph is left whole.
        if x.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self._unit(x)
        if self.detach_branch and _fused.runs(x):
            branch = _library.Branch(self.input_scale, self.alpha_min, self.alpha_max)
            settings = _fused.Settings(self.window, self.signed, branch, self.alpha_gradient_scale)
            return _fused.unit(x, self._parameters_of_branch(), settings)
        alpha = self.alpha(x)
        if self.alpha_gradient_scale != 1.0:
            # The value is alpha itself, to the bit: the difference is zero, its gradient is not.
            constant = alpha.detach()
            alpha = constant + (alpha - constant) * self.alpha_gradient_scale
        w = self.window
        return ppool2d(
            x, alpha, w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode, signed=self.signed
        )

    def _unit(self, x: Tensor) -> Tensor:
        w = self.window
        y: Tensor = torch.ops.ppool.unit(
            x,
            *self._parameters_of_branch(),
            w.kernel,
            w.stride,
            w.padding,
            w.dilation,
            w.ceil_mode,
            self.signed,
            self.input_scale,
            self.alpha_min,
            self.alpha_max,
        )
        return y

    def extra_repr(self) -> str:
        """Window and clip, as ``print(model)`` shows them."""
        w = self.window
        text = f"{self.channels}, kernel_size={w.kernel}, stride={w.stride}, padding={w.padding}"
        if w.dilation != (1, 1):
            text += f", dilation={w.dilation}"
        if w.ceil_mode:
            text += ", ceil_mode=True"
        if self.signed:
            text += ", signed=True"
        return f"{text}, alpha=[{self.alpha_min:g}, {self.alpha_max:g}]"
