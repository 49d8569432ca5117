"""What a trunk is: an encoder, a decoder, the maps in between, and which inputs it takes.

A trunk is an encoder (:meth:`Backbone.encode`) and a decoder (:meth:`Backbone.decode_maps`), so that a head may bring
a decoder of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cardiac_ct_fm.config import BackboneConfig
from cardiac_ct_fm.errors import UsageError


@dataclass(frozen=True)
class Feature:
    """One map of a feature pyramid.

    Attributes:
        index: position in the list of :meth:`Backbone.forward_intermediates`.
        channels: channels of the map.
        stride: input voxels per map voxel along X, Y, Z.
    """

    index: int
    channels: int
    stride: tuple[int, int, int]


class Backbone(nn.Module, ABC):
    """A trunk that maps (B, in_channels, X, Y, Z) to (B, out_channels, X, Y, Z).

    Attributes:
        config: the settings that it was built from.
        feature_info: what :meth:`forward_intermediates` returns, fine to coarse.
        decoder_info: what :meth:`decode_maps` returns, fine to coarse; the first is at full resolution.
        decoder_names: names of the decoder's blocks, coarse to fine; all other parts are the encoder.
        stages: prefixes of parameter names, input side first: the order of layer-wise learning-rate decay.
    """

    feature_info: tuple[Feature, ...]
    decoder_info: tuple[Feature, ...]
    decoder_names: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...]

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self._axes = tuple("RASLPI".index(letter) % 3 for letter in config.orientation)
        self._flips = [2 + axis for axis, letter in enumerate(config.orientation) if letter not in "RAS"]

    @abstractmethod
    def _pyramid(self, x: Tensor) -> list[Tensor]:
        """Encoder maps from stride 2 on, fine to coarse, of an input in the trunk's own orientation."""

    @abstractmethod
    def _skips(self, x: Tensor) -> list[Tensor]:
        """What the decoder reads: maps at stride 1, 2, … and, last, the bottleneck, in the trunk's own orientation."""

    @property
    def out_channels(self) -> int:
        """Channels of the last decoder map."""
        return self.decoder_info[0].channels

    def encode(self, x: Tensor) -> list[Tensor]:
        """Maps that the decoder reads, fine to coarse and in the trunk's own orientation.

        Args:
            x: (B, in_channels, X, Y, Z) in RAS.

        Raises:
            UsageError: the input's shape does not fit; the message says what to pad it to.
        """
        self.check_input(x)
        return self._skips(self._to_own(x))

    def decoder_blocks(self) -> dict[str, nn.Module]:
        """The decoder's blocks by name, coarse to fine."""
        return {name: self.get_submodule(name) for name in self.decoder_names}

    def decode_maps(self, skips: Sequence[Tensor], blocks: Sequence[nn.Module] | None = None) -> list[Tensor]:
        """Decoder maps in RAS, fine to coarse.

        Args:
            skips: what :meth:`encode` returned.
            blocks: another decoder of the same architecture, coarse to fine, instead of the trunk's own.
        """
        used = list(self.decoder_blocks().values()) if blocks is None else blocks
        current, maps = skips[-1], []
        for block, skip in zip(used, reversed(skips[:-1]), strict=True):
            current = block(current, skip)
            maps.append(self._to_ras(current))
        return maps[::-1]

    def forward(self, x: Tensor) -> Tensor:
        """The last decoder map, (B, out_channels, X, Y, Z).

        Raises:
            UsageError: the input's shape does not fit; the message says what to pad it to.
        """
        return self.decode_maps(self.encode(x))[0]

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """The encoder's feature pyramid, fine to coarse, as :attr:`feature_info` describes.

        Raises:
            UsageError: the input's shape does not fit; the message says what to pad it to.
        """
        self.check_input(x)
        return [self._to_ras(value) for value in self._pyramid(self._to_own(x))]

    def _to_own(self, x: Tensor) -> Tensor:
        """A map (B, C, X, Y, Z) in RAS, turned to the trunk's own axes."""
        if self.config.orientation == "RAS":
            return x
        return x.permute(0, 1, *(2 + axis for axis in self._axes)).flip(self._flips)

    def _to_ras(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`_to_own`."""
        if self.config.orientation == "RAS":
            return x
        return x.flip(self._flips).permute(0, 1, *(2 + self._axes.index(axis) for axis in range(3)))

    def check_input(self, x: Tensor) -> None:
        """Refuse an input that this trunk cannot take.

        Raises:
            UsageError: wrong rank, channels or size; the message computes the size to pad to.
        """
        if x.ndim != 5 or x.shape[1] != self.config.in_channels:
            raise UsageError(
                f"The input has shape {tuple(x.shape)}; this trunk takes (batch, {self.config.in_channels}, X, Y, Z)."
            )
        size, step = tuple(x.shape[2:]), self.config.divisor
        padded = [max(step, -(-edge // step) * step) for edge in size]
        if math.prod(edge // s for edge, s in zip(padded, self.feature_info[-1].stride, strict=True)) == 1:
            padded[0] = 2 * step  # instance normalisation cannot work on a bottleneck of one voxel
        if tuple(padded) != size:
            raise UsageError(
                f"The input is {by_size(size)} voxels; this trunk needs multiples of {step}, at least "
                f"{2 * step} along one axis: pad to {by_size(padded)}."
            )


def levels(widths: Sequence[int], finest: int) -> tuple[Feature, ...]:
    """Maps that halve their resolution from one to the next, the first with a stride of ``finest`` voxels."""
    return tuple(Feature(i, width, (finest << i,) * 3) for i, width in enumerate(widths))


def by_size(size: Sequence[int] | torch.Size) -> str:
    """A size for people: 96×96×64."""
    return "×".join(str(edge) for edge in size)
