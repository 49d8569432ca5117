"""Layers of the convolutional half of a trunk that run well on a CPU; their weights and results are torch's.

torch leaves small convolutions to a slow routine and stores maps channel by channel. Where nothing is learned, these
layers always take oneDNN and keep all channels of a voxel together (channels last), as its fastest kernels want it.
Measured in CPU-ms (torch 2.13, one core with AVX-512): 3×3×3 with 24 channels at 64³ 70 instead of 108, with 48 at 16³
3 instead of 12, a transposed convolution to 64³ 7 instead of 37. While training, on a GPU, under autocast and in
exports torch's own paths run, but for norms in a training in bfloat16 on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYOUT = torch.channels_last_3d

_PART = 131_072
"""Values that are summed at once: 512 kB, which fits a core's second-level cache."""


def in_place_of_slow_ones(module: nn.Module) -> None:
    """Replace the convolutions and instance norms below ``module``; names, weights and results stay."""
    for name, child in module.named_children():
        if type(child) is nn.Conv3d:
            setattr(module, name, Convolution(child))
        elif type(child) is nn.InstanceNorm3d and not child.track_running_stats:
            setattr(module, name, InstanceNorm(child))
        else:
            in_place_of_slow_ones(child)


def has_fast_layout(x: Tensor) -> bool:
    """Whether oneDNN's channels-last kernels are to be used for ``x``."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.compiler.is_compiling()
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and bool(torch.backends.mkldnn.enabled)
    )


def _learns_in_bfloat16(x: Tensor) -> bool:
    """Whether a training in bfloat16 on a CPU keeps all channels of a voxel together here."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and x.requires_grad
        and x.shape[1] > 1
        and x.is_contiguous(memory_format=LAYOUT)
    )


class Convolution(nn.Conv3d):
    """A 3-D convolution with zero padding that takes over the weights of another one.

    Args:
        of: the convolution; its parameters are shared, not copied.
    """

    def __init__(self, of: nn.Conv3d) -> None:
        # On "meta", so that no weights are drawn: the random state is the same as without this layer.
        super().__init__(
            of.in_channels,
            of.out_channels,
            of.kernel_size,  # type: ignore[arg-type]
            of.stride,  # type: ignore[arg-type]
            of.padding,  # type: ignore[arg-type]
            of.dilation,  # type: ignore[arg-type]
            of.groups,
            of.bias is not None,
            of.padding_mode,
            device="meta",
        )
        self.weight, self.bias = of.weight, of.bias

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, X, Y, Z) → (B, out, X', Y', Z')."""
        if not has_fast_layout(input) or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(input)
        result: Tensor = torch.ops.aten.mkldnn_convolution(
            channels_last(input), self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )
        return result

    def keeps_size(self) -> bool:
        """Whether a map has the size afterwards that it had before, by zero padding."""
        plain = self.padding_mode == "zeros" and self.dilation == (1, 1, 1) and self.groups == 1
        around = tuple(edge // 2 for edge in self.kernel_size)
        return plain and self.stride == (1, 1, 1) and self.padding == around and all(k % 2 for k in self.kernel_size)

    def on_planes(self, planes: Tensor) -> Tensor:
        """Of some planes of a map and the rim that the kernel needs: (1, in, n + rim, Y, Z) → (1, out, n, Y, Z)."""
        return self._on_planes(planes, self.weight, self.bias)

    def followed_by(self, scale: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
        """:meth:`on_planes` with each channel scaled and shifted (C,) afterwards, at no cost."""
        weight = self.weight * scale.view(-1, 1, 1, 1, 1)
        bias = shift if self.bias is None else shift + self.bias * scale
        return lambda planes: self._on_planes(planes, weight, bias)

    def _on_planes(self, planes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = torch.ops.aten.mkldnn_convolution(
            channels_last(planes), weight, bias, (0, *self.padding[1:]), self.stride, self.dilation, self.groups
        )
        return result


class LastLayer(Convolution):
    """A 1×1×1 convolution to a few channels, each of which is together in memory afterwards: logits."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, X, Y, Z) → (B, out, X, Y, Z)."""
        if not has_fast_layout(input) or self.bias is None or not input.is_contiguous(memory_format=LAYOUT):
            return super().forward(input)
        out = input.new_empty((len(input), self.out_channels, *input.shape[2:]))
        for voxels, logits in zip(input.permute(0, 2, 3, 4, 1).flatten(1, 3), out.flatten(2), strict=True):
            torch.addmm(self.bias[:, None], self.weight.flatten(1), voxels.T, out=logits)
        return out


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm of a map that nobody else reads, with the weights of another one.

    Args:
        of: the norm; its parameters, where it has any, are shared.
    """

    def __init__(self, of: nn.InstanceNorm3d) -> None:
        super().__init__(of.num_features, of.eps, affine=of.affine, device="meta")
        self.weight, self.bias = of.weight, of.bias

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, X, Y, Z), each channel to mean 0 and variance 1; where nothing is learned, in place on a CPU."""
        if _learns_in_bfloat16(input):
            # Of one sample it is a batch norm, which keeps the layout; torch's instance norm does not.
            normal = [
                F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
                for x in input.chunk(len(input))
            ]
            return normal[0] if len(normal) == 1 else torch.cat(normal)
        if not has_fast_layout(input):
            return super().forward(input)
        if not input.is_contiguous(memory_format=LAYOUT):
            # The same sums, three times as fast (but not its gradient).
            return F.group_norm(input, input.shape[1], self.weight, self.bias, self.eps)
        for sample in input.chunk(len(input)):
            sums = Sums(input.shape[1])
            sums.add(sample)
            scale, shift = sums.scale_and_shift(self)
            for part in _parts(sample):
                torch.addcmul(shift, part, scale, out=part)
        return input


class Sums:
    """Sums over the voxels of a map in channels last, from which its norm follows.

    torch's norms add the values of a channel one after another in this layout, which is wrong by 2e-4 after 64³ of
    them; here sums of parts that fit the cache are added in double precision, and that is faster too.

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        self._voxels = 0
        self._total, self._squares = torch.zeros(2, channels, dtype=torch.float64, device="cpu")

    def add(self, planes: Tensor) -> None:
        """Add the voxels of one sample, or of some of its planes, (1, C, x, Y, Z)."""
        parts = _parts(planes)
        for part in parts if len(parts) > 1 else [parts[0].double()]:  # few cost nothing, and few values cancel less
            self._voxels += len(part)
            self._total += part.sum(dim=0)
            self._squares += torch.linalg.vecdot(part, part, dim=0)

    def scale_and_shift(self, norm: nn.InstanceNorm3d) -> tuple[Tensor, Tensor]:
        """What brings each channel to mean 0 and variance 1, and to the norm's weights: scale and shift, (C,)."""
        mean = self._total / self._voxels
        # of a channel that is constant the difference is rounding alone, and may fall below zero
        scale = ((self._squares / self._voxels - mean.square()).clamp_min(0) + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
        return scale.float(), shift.float()


def _parts(planes: Tensor) -> tuple[Tensor, ...]:
    """The voxels (n, C) of one sample in channels last, in parts that fit the cache."""
    rows = planes[0].permute(1, 2, 3, 0).flatten(0, 2)
    return rows.chunk(-(-rows.numel() // _PART))


def channels_last(x: Tensor) -> Tensor:
    """``x`` with all channels of a voxel together; one channel alone is only told to be so."""
    if x.shape[1] > 1:
        return x.contiguous(memory_format=LAYOUT)
    x = x.contiguous()
    return x.as_strided(x.shape, (x.stride(0), 1, *x.stride()[2:]))
