"""Residual and up-sampling blocks that take a map a few planes at a time through the cache of a CPU.

MONAI's blocks make a whole map of every step: up-sampled, joined with its skip, convolved, normalised, the residual
beside it. At full resolution one such map has 170 MB (48 channels, 96³), and five of them exist at once. Here a block
holds one beside what it was given: planes are read, joined, normalised and activated while they are in the cache, just
before the convolution that wants them, and the second convolution writes over the first one's result behind itself.
What is cheap (up-sampling, joining, the residual's 1×1×1 convolution) is done twice rather than kept. Weights, their
names and results are MONAI's; while training, on a GPU, under autocast and in exports its own paths run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from monai.networks.blocks import UnetrUpBlock
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn

from cardiac_ct_fm.cpu_layers import LAYOUT, Convolution, InstanceNorm, Sums, has_fast_layout, in_place_of_slow_ones

SLAB = 2**22
"""Values of the planes that a convolution makes at once: 16 MB."""

LARGE = 2**25
"""Values of a map above which memory counts, 128 MB: ``base`` at 96³. MONAI's way takes up to a tenth less time."""

Read = Callable[[Tensor, int, int], None]
"""Writes planes ``begin`` to ``end`` of a map into a tensor (1, C, end - begin, Y, Z); ``begin`` is even."""


def in_place_of_slow_blocks(module: nn.Module) -> None:
    """Replace blocks, convolutions and norms below ``module``; names, weights and results stay."""
    in_place_of_slow_ones(module)
    for of, replace in ((UnetResBlock, _residual_block), (UnetrUpBlock, _up_block)):
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is of:
                    setattr(parent, name, replace(child))


class ResidualBlock(UnetResBlock):  # type: ignore[misc]
    """Two 3×3×3 convolutions with their norms, added to what they were given.

    Args:
        of: MONAI's block, whose layers are taken over.
    """

    def __init__(self, of: UnetResBlock) -> None:
        nn.Module.__init__(self)
        self.downsample = of.downsample
        for name, layer in of.named_children():
            self.add_module(name, layer)

    def forward(self, inp: Tensor) -> Tensor:
        """(B, in, X, Y, Z) → (B, out, X, Y, Z)."""
        if self.training or not has_fast_layout(inp) or not self.makes_large(inp):
            result: Tensor = super().forward(inp)
            return result
        out = self.room(inp)
        for sample, made in zip(inp.chunk(len(inp)), out.chunk(len(out)), strict=True):
            self.by_planes(_given(sample), inp.shape[1], made)
        return out

    def makes_large(self, like: Tensor) -> bool:
        """Whether the result for one sample of the size of ``like`` is worth saving memory."""
        return math.prod(like.shape[2:]) * int(self.conv1.conv.out_channels) > LARGE

    def room(self, like: Tensor) -> Tensor:
        """An empty map for the result, of the size of ``like``."""
        shape = (len(like), self.conv1.conv.out_channels, *like.shape[2:])
        return _empty(shape)

    def by_planes(self, read: Read, channels: int, out: Tensor) -> None:
        """Write the result for one map of so many ``channels`` into ``out`` (1, out, X, Y, Z)."""
        conv1, conv2 = self.conv1.conv, self.conv2.conv
        conv3 = self.conv3.conv if hasattr(self, "conv3") else None
        sums, beside = Sums(out.shape[1]), Sums(out.shape[1])
        for begin, end, planes in _slabs(read, channels, out, rim=1):
            sums.add(made := conv1.on_planes(planes))
            out[:, :, begin:end] = made
            if conv3 is not None:
                beside.add(conv3.on_planes(planes[:, :, 1:-1]))
        scale, shift = (values.view(-1, 1, 1, 1) for values in sums.scale_and_shift(self.norm1))

        def normal(into: Tensor, begin: int, end: int) -> None:
            for plane, made in zip(_planes(into), _planes(out[:, :, begin:end]), strict=True):
                self.lrelu(torch.addcmul(shift, made, scale, out=plane))

        sums = Sums(out.shape[1])
        for begin, end, planes in _slabs(normal, out.shape[1], out, rim=1):
            sums.add(made := conv2.on_planes(planes))
            out[:, :, begin:end] = made
        scale, shift = (values.view(-1, 1, 1, 1) for values in sums.scale_and_shift(self.norm2))
        if conv3 is None:
            residual: Callable[[Tensor], Tensor] = shift.add
        else:
            scale3, shift3 = beside.scale_and_shift(self.norm3)
            residual = conv3.followed_by(scale3, shift3 + shift.flatten())
        for begin, end, planes in _slabs(read, channels, out, rim=0):
            for rest, here in zip(_planes(residual(planes)), _planes(out[:, :, begin:end]), strict=True):
                self.lrelu(torch.addcmul(rest, here, scale, out=here))


class UpBlock(UnetrUpBlock):  # type: ignore[misc]
    """A transposed convolution to twice the size, a skip beside it, and a residual block on both.

    Args:
        of: MONAI's block, whose layers are taken over.
    """

    def __init__(self, of: UnetrUpBlock) -> None:
        nn.Module.__init__(self)
        self.transp_conv, self.conv_block = of.transp_conv, of.conv_block

    def forward(self, inp: Tensor, skip: Tensor) -> Tensor:
        """(B, in, X, Y, Z) and (B, out, 2X, 2Y, 2Z) → (B, out, 2X, 2Y, 2Z)."""
        if self.training or not has_fast_layout(inp) or not self.conv_block.makes_large(skip):
            result: Tensor = super().forward(inp, skip)
            return result
        block: ResidualBlock = self.conv_block
        weight: Tensor = self.transp_conv.conv.weight
        out = block.room(skip)
        for low, fine, made in zip(*(m.chunk(len(out)) for m in (inp, skip, out)), strict=True):
            block.by_planes(_joined(low, weight, fine), 2 * skip.shape[1], made)
        return out


def _residual_block(block: UnetResBlock) -> nn.Module:
    """The fast block in place of one that keeps a map's size."""
    layers = dict(block.named_children())
    convolutions = [layer.conv for name, layer in layers.items() if name.startswith("conv")]
    norms = [layer for name, layer in layers.items() if name.startswith("norm")]
    known = all(isinstance(c, Convolution) and c.keeps_size() for c in convolutions)
    known &= all(isinstance(n, InstanceNorm) for n in norms)
    if known and getattr(block.lrelu, "inplace", False):  # what it returns is not looked at
        return ResidualBlock(block)
    same: nn.Module = block
    return same


def _up_block(block: UnetrUpBlock) -> nn.Module:
    """The fast block in place of one that doubles a map's size."""
    up = block.transp_conv.conv
    if isinstance(block.conv_block, ResidualBlock) and up.kernel_size == up.stride == (2, 2, 2) and up.bias is None:
        return UpBlock(block)
    same: nn.Module = block
    return same


def _empty(shape: tuple[int, ...]) -> Tensor:
    """A map to be filled, of the type and on the device that :func:`has_fast_layout` asks for, whatever torch's own."""
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=LAYOUT)


def _planes(x: Tensor) -> tuple[Tensor, ...]:
    """Every plane of a map, which fits the cache."""
    return x.chunk(x.shape[2], 2)


def _given(x: Tensor) -> Read:
    """Reads a map that is there."""

    def read(into: Tensor, begin: int, end: int) -> None:
        into.copy_(x[:, :, begin:end])

    return read


def _joined(low: Tensor, weight: Tensor, skip: Tensor) -> Read:
    """Reads a map that is made: ``low`` up-sampled by a transposed convolution with ``weight``, ``skip`` behind it."""
    width, depth = low.shape[3:]
    channels = skip.shape[1]
    # each voxel becomes 2×2×2 of its own, of which two at a time lie side by side in memory
    pairs = weight.permute(2, 3, 0, 4, 1).flatten(3)

    def read(into: Tensor, begin: int, end: int) -> None:
        fine = _empty((1, channels, end - begin, 2 * width, 2 * depth))
        places = fine[0].permute(1, 2, 3, 0).view(-1, 2, width, 2, depth, 2 * channels)
        for coarse, place in zip(low[0, :, begin // 2 : end // 2].permute(1, 2, 3, 0), places, strict=True):
            for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):
                place[x, :, y] = coarse @ pairs[x, y]
        torch.cat((fine, skip[:, :, begin:end]), 1, out=into)

    return read


def _slabs(read: Read, channels: int, like: Tensor, rim: int) -> Iterator[tuple[int, int, Tensor]]:
    """A map of so many ``channels`` and the size of ``like``, a few planes at a time.

    Each plane is read once, in order, ``rim`` + 1 at most before it is yielded: ``like`` may be what is read and
    written.

    Yields:
        begin and end of the planes, and the planes (1, channels, end - begin + 2 · rim, Y, Z) with a rim on both sides,
        which is zero beyond the map; they are valid until the next.
    """
    length, *plane = like.shape[2:]
    step = max(4, SLAB // (like.shape[1] * plane[0] * plane[1]) // 2 * 2)
    held = _empty((1, channels, min(step, length) + 2 * rim + 1, *plane))
    first = done = 0  # planes of the map that ``held`` begins with, and that are read
    for begin in range(0, length, step):
        end = min(begin + step, length)
        kept = begin - rim - first
        if begin == 0:
            held[:, :, :rim] = 0
        else:
            held[:, :, : done - first - kept] = held[:, :, kept : done - first]
        first += kept
        wanted = min(length, (end + rim + 1) // 2 * 2)
        if wanted > done:
            read(held[:, :, done - first : wanted - first], done, wanted)
            done = wanted
        if end == length:
            held[:, :, length - first : length - first + rim] = 0
        yield begin, end, held[:, :, : end - begin + 2 * rim]
