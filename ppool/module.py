"""``PPool2d``: the P-pooling unit of Figure 1, a drop-in for ``torch.nn.MaxPool2d``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from ppool import _autograd, _formula, _operators
from ppool.window import Window, positive

__all__ = ["PPool2d", "evaluating"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and then each of its modules back in its own.

    ``model.train(was_training)`` would not: it thaws a batch norm that was frozen by itself.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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
        offset_scale: Multiple of each channel's mean size that is added to the input and taken off
            the result, so that the zeros behind a ReLU weigh something and alpha decides how much;
            0 adds nothing, as the paper has it. The mean is that of the first training batch and
            stays; before there was one nothing is added.
        detach_branch: Keep the branch's gradient out of the trunk, as Eq. 3 is written.
        alpha_gradient_scale: Factor on the gradient of alpha, which falls as 1 / alpha ** 2.
    """

    SOFT: ClassVar[Mapping[str, float]] = MappingProxyType({"alpha_init": 1.0, "offset_scale": 3.0})
    """Arguments for a network that is then fine-tuned on photographs (``docs/photographs.md``).

    Near the average, zeros behind a ReLU counted. The defaults are the paper's, near the maximum,
    where a trained network goes on as it was; with these it does not until it is trained. The bias
    that alpha rests on needs the rate that :func:`ppool.parameter_groups` gives it.
    """

    # Its convolution and PReLU only hold parameters; eager quantisation must not replace them.
    qconfig = None

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
        offset_scale: float = 0.0,
        detach_branch: bool = True,
        alpha_gradient_scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels = positive(channels, "channels")
        if not 0 <= alpha_min <= alpha_init <= alpha_max:
            raise ValueError(
                "alpha: expected 0 <= alpha_min <= alpha_init <= alpha_max, got "
                f"{alpha_min!r}, {alpha_init!r}, {alpha_max!r}"
            )
        if not 0 <= offset_scale < inf:
            raise ValueError(f"offset_scale: expected a finite number >= 0, got {offset_scale!r}")
        self.window = Window.of(kernel_size, stride, padding, dilation, ceil_mode)
        self.signed = signed
        self.input_scale = input_scale
        self.alpha_min = alpha_min
        self.alpha_max = alpha_max
        self.offset_scale = offset_scale
        self.detach_branch = detach_branch
        self.alpha_gradient_scale = alpha_gradient_scale
        self.region = nn.Conv2d(channels, channels, self.window.kernel, groups=channels, bias=False)
        self.activation = nn.PReLU(channels, init=0.25)
        self.point_weight = nn.Parameter(torch.zeros(channels))
        self.point_bias = nn.Parameter(torch.full((channels,), float(alpha_init)))
        nn.init.kaiming_normal_(self.region.weight)
        self.offset: Tensor | None
        self.register_buffer("offset", torch.zeros(channels, 1, 1) if offset_scale else None)
        self._awaits_offset = bool(offset_scale)

    @property
    def channels(self) -> int:
        """Number of input and output channels."""
        return self.region.out_channels

    def raised(self, x: Tensor) -> Tensor:
        """``x`` plus the offset of each channel: what is pooled, and what the branch sees."""
        return x if self.offset is None else x + self._offset_of(x)

    def alpha(self, x: Tensor) -> Tensor:
        """The alpha map of ``x``, one exponent for each pooled element (Eq. 5).

        Raises:
            ValueError: as :meth:`forward`.
        """
        settings = _operators.settings_of(*self._settings())
        parameters = self._parameters_of_branch()
        _operators.check_unit(x, parameters, settings)
        x = self.raised(x)
        batched = x if x.dim() == 4 else x.unsqueeze(0)
        alpha = _formula.alpha_map(batched, parameters, settings).to(x.dtype)
        return alpha if x.dim() == 4 else alpha.squeeze(0)

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``, called so because a keyword argument of ``torch.nn.MaxPool2d`` is.

        Raises:
            ValueError: if ``input`` has other channels, or is on another device, than the unit, or
                if a parameter has another shape than the unit was made with.
        """
        if self._awaits_offset and self.training:
            self._settle(input)
        y = _autograd.unit(self.raised(input), self._parameters_of_branch(), self._settings())
        return y if self.offset is None else y - self._offset_of(y)

    @torch.no_grad()
    def _settle(self, x: Tensor) -> None:
        """Take the offset from the first batch, unless a state dict brought it."""
        assert self.offset is not None  # noqa: S101 (else it is not awaited)
        if not self.offset.any():
            sizes = x.float().abs().transpose(-3, 0).flatten(1).mean(1)
            self.offset.copy_(self.offset_scale * sizes.clamp_min(1e-6)[:, None, None])
        self._awaits_offset = False

    def _offset_of(self, x: Tensor) -> Tensor:
        assert self.offset is not None  # noqa: S101 (for the type checker; callers asked)
        return self.offset.to(x.dtype)

    def _parameters_of_branch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.region.weight, self.activation.weight, self.point_weight, self.point_bias

    def _settings(self) -> tuple[Any, ...]:
        """The arguments of ``ppool::unit`` after its tensors."""
        w = self.window
        return (
            w.kernel, w.stride, w.padding, w.dilation, w.ceil_mode, self.signed,
            self.input_scale, self.alpha_min, self.alpha_max,
            self.detach_branch, self.alpha_gradient_scale,
        )  # fmt: skip

    def __prepare_scriptable__(self) -> NoReturn:
        raise TypeError(
            "PPool2d cannot be scripted; use torch.export, torch.jit.trace or ppool.export"
        )

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
        if self.offset_scale:
            text += f", offset_scale={self.offset_scale:g}"
        return f"{text}, alpha=[{self.alpha_min:g}, {self.alpha_max:g}]"
