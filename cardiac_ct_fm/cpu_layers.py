"""Layers of the convolutional half of a trunk that run well on a CPU; their weights and results are torch's.

torch leaves small convolutions to a slow routine and stores maps channel by channel. Where nothing is learned, these
layers always take oneDNN and keep all channels of a voxel together (channels last), as its fastest kernels want it.
Measured in CPU-ms (torch 2.13, one core with AVX-512): 3×3×3 with 24 channels at 64³ 70 instead of 108, with 48 at 16³
3 instead of 12, a transposed convolution to 64³ 7 instead of 37. While training, on a GPU, under autocast and in
exports torch's own paths run.
"""

from __future__ import annotations

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
            _channels_last(input), self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )
        return result


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
        if not has_fast_layout(input):
            return super().forward(input)
        if not input.is_contiguous(memory_format=LAYOUT):
            # The same sums, three times as fast (but not its gradient).
            return F.group_norm(input, input.shape[1], self.weight, self.bias, self.eps)
        for sample in input.permute(0, 2, 3, 4, 1).flatten(1, 3):
            _normalise(sample, self.eps, self.weight, self.bias)
        return input


def _normalise(rows: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None) -> None:
    """Bring each column of (voxels, channels) to mean 0 and variance 1, in place.

    torch's norms add the values of a channel one after another in this layout, which is wrong by 2e-4 after 64³ of
    them; here sums of parts that fit the cache are added in double precision, and that is faster too.
    """
    parts = rows.chunk(-(-rows.numel() // _PART))
    total, squares = torch.zeros(2, rows.shape[1], dtype=torch.float64)
    for part in parts if len(parts) > 1 else [rows.double()]:  # a small map costs nothing, and few values cancel less
        total += part.sum(dim=0)
        squares += torch.linalg.vecdot(part, part, dim=0)
    mean = total / len(rows)
    # of a channel that is constant the difference is rounding alone, and may fall below zero
    scale = ((squares / len(rows) - mean.square()).clamp_min(0) + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    scale, shift = scale.to(rows), shift.to(rows)
    for part in parts:
        torch.addcmul(shift, part, scale, out=part)


def _channels_last(x: Tensor) -> Tensor:
    """``x`` with all channels of a voxel together; one channel alone is only told to be so."""
    if x.shape[1] > 1:
        return x.contiguous(memory_format=LAYOUT)
    x = x.contiguous()
    return x.as_strided(x.shape, (x.stride(0), 1, *x.stride()[2:]))
