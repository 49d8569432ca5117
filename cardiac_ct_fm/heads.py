"""Heads: 1×1×1 convolutions on decoder maps, private decoders, and the coarse heads of deep supervision."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.cpu_layers import Convolution
from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.trunk import Backbone, Feature


def build_head(in_channels: int, config: HeadConfig) -> nn.Conv3d:
    """A 1×1×1 convolution from the trunk's last map to one logit per class, background first."""
    return Convolution(nn.Conv3d(in_channels, config.channels, kernel_size=1))


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
            {head.name: nn.ModuleList(build_head(level.channels, head) for level in levels) for head in heads}
        )

    def forward(self, maps: Sequence[Tensor], heads: Sequence[str] | None = None) -> dict[str, list[Tensor]]:
        """Logits per head, one tensor per map, fine to coarse."""
        wanted = list(self.by_head) if heads is None else heads
        chosen: dict[str, nn.Module] = {name: self.by_head[name] for name in wanted}
        return {
            name: [conv(value) for conv, value in zip(convs.children(), maps, strict=True)]
            for name, convs in chosen.items()
        }
