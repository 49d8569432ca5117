"""Heads: convolutions on decoder maps, private decoders, and the coarse heads of deep supervision."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.cpu_layers import Convolution, LastLayer
from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.trunk import Backbone, Feature

LEAK = 0.01
"""Slope of the activations below zero, as in nnU-Net (Isensee et al. 2021) and the blocks of the trunk."""

READ_MAPS = slice(1, 3)
"""Decoder maps that hidden layers read: those at half and quarter resolution, which show more of the surroundings than
the finest. Chosen after one trial on digital patients; ``docs/finetuning.md`` records it and what it does not show."""

Block = tuple[slice, slice, slice]
EVERYTHING: Block = (slice(None), slice(None), slice(None))


class HiddenHead(nn.Module):
    """Two hidden 3×3×3 layers before the logits, for structures of a few voxels that the last map alone does not show.

    It reads two coarser decoder maps of the trunk (what is where) and beside them the image (its edges, which they have
    averaged). With 16 channels on maps of 24 and 48 it has 39 thousand weights, 154 kB.

    Args:
        in_channels: of what :func:`head_input` gives.
        config: the head; ``hidden`` channels per layer.
    """

    def __init__(self, in_channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.first = Convolution(nn.Conv3d(in_channels, config.hidden, kernel_size=3, padding=1))
        self.second = Convolution(nn.Conv3d(config.hidden, config.hidden, kernel_size=3, padding=1))
        self.logits = last_layer(config.hidden, config)
        self.activation = nn.LeakyReLU(LEAK)

    def forward(self, read: Tensor) -> Tensor:
        """Logits (B, classes, X, Y, Z) of what :func:`head_input` gives, (B, in_channels, X, Y, Z)."""
        logits: Tensor = self.logits(self.activation(self.second(self.activation(self.first(read)))))
        return logits


def last_layer(in_channels: int, config: HeadConfig) -> nn.Conv3d:
    """A 1×1×1 convolution from a map to one logit per class, background first."""
    return LastLayer(nn.Conv3d(in_channels, config.channels, kernel_size=1))


def build_head(maps: Sequence[Feature], config: HeadConfig) -> nn.Module:
    """The head on a trunk's decoder maps, fine to coarse: :func:`last_layer`, or a :class:`HiddenHead`."""
    if not config.hidden:
        return last_layer(maps[0].channels, config)
    return HiddenHead(sum(level.channels for level in maps[READ_MAPS]) + 1, config)


def head_input(config: HeadConfig, maps: Sequence[Tensor], image: Tensor) -> Tensor:
    """What a head reads.

    Args:
        config: the head.
        maps: decoder maps (B, C, X, Y, Z), fine to coarse.
        image: (B, 1 or more, X, Y, Z), the normalised image first.

    Returns:
        The finest map; for hidden layers the maps of :data:`READ_MAPS` at its resolution, and the image behind them.
    """
    return joined(head_maps(config, maps, image))


def head_maps(config: HeadConfig, maps: Sequence[Tensor], image: Tensor) -> list[Tensor]:
    """What :func:`head_input` joins, each at its own resolution, the finest last; arguments as there."""
    return [*maps[READ_MAPS], image[:, :1]] if config.hidden else [maps[0]]


def joined(parts: Sequence[Tensor], block: Block = EVERYTHING) -> Tensor:
    """Maps side by side at the resolution of the last.

    Args:
        parts: (B, C, x, y, z) each; the last is a whole number of times as fine as each of the others.
        block: what of the last is wanted; no more than this and a rim of the others is interpolated.

    Returns:
        (B, sum of C, X, Y, Z).
    """
    finest = parts[-1]
    ranges = [part.indices(n) for part, n in zip(block, finest.shape[2:], strict=True)]
    shown = [_finer(part, tuple(finest.shape[2:]), ranges) for part in parts[:-1]]
    return torch.cat([*shown, finest[(..., *block)]], dim=1)


def _finer(coarse: Tensor, size: tuple[int, ...], ranges: Sequence[tuple[int, int, int]]) -> Tensor:
    """Ranges (begin, end, 1) of a map interpolated to ``size``, by way of the voxels they need and no others."""
    near, within, target = [], [], []
    for n, whole, (begin, end, _) in zip(coarse.shape[2:], size, ranges, strict=True):
        times = whole // n
        low, high = max(begin // times - 1, 0), min(-(-end // times) + 1, n)
        near.append(slice(low, high))
        within.append(slice(begin - low * times, end - low * times))
        target.append((high - low) * times)
    x, y, z = near
    fine = F.interpolate(coarse[:, :, x, y, z], size=target, mode="trilinear", align_corners=False)
    x, y, z = within
    return fine[:, :, x, y, z]


def copy_decoder(backbone: Backbone) -> nn.ModuleList:
    """An independent copy of the trunk's decoder, coarse to fine, for a head that trains a decoder of its own."""
    return nn.ModuleList(copy.deepcopy(block) for block in backbone.decoder_blocks().values())


class CoarseHeads(nn.Module):
    """Heads on the coarser decoder maps, for deep supervision while training; they are never saved with a model.

    Args:
        levels: decoder maps below full resolution, fine to coarse (:attr:`Backbone.decoder_info` from index 1 on).
        heads: the heads to supervise.

    Example:
        >>> coarse = CoarseHeads(model.backbone.decoder_info[1:3], model.config.heads)
        >>> maps = model.decoder_maps(x)                # full, half, quarter resolution, …
        >>> logits = coarse(maps[1:3])["hps"]           # [(B, 6, X/2, …), (B, 6, X/4, …)]
    """

    def __init__(self, levels: Sequence[Feature], heads: Iterable[HeadConfig]) -> None:
        super().__init__()
        if not levels:
            raise UsageError("Deep supervision needs at least one decoder map below full resolution; got none.")
        self.by_head = nn.ModuleDict(
            {head.name: nn.ModuleList(last_layer(level.channels, head) for level in levels) for head in heads}
        )

    def forward(self, maps: Sequence[Tensor], heads: Sequence[str] | None = None) -> dict[str, list[Tensor]]:
        """Logits per head, one tensor per map, fine to coarse."""
        wanted = list(self.by_head) if heads is None else heads
        chosen: dict[str, nn.Module] = {name: self.by_head[name] for name in wanted}
        return {
            name: [conv(value) for conv, value in zip(convs.children(), maps, strict=True)]
            for name, convs in chosen.items()
        }
