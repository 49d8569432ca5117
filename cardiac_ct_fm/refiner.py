"""The network that says where in a patch around it a landmark lies; patches are :mod:`cardiac_ct_fm.refinement`'s."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cardiac_ct_fm.cpu_layers import channels_last, in_place_of_slow_ones
from cardiac_ct_fm.errors import UsageError

LEAK = 0.01
"""Slope of the activations below zero, as in nnU-Net (Isensee et al. 2021)."""

DIVISOR = 8
"""Edges of patches are multiples of it: three times the map is halved."""


class PointRefiner(nn.Module):
    """A U-Net of four levels; with 32 channels it has 0.5 million weights.

    Args:
        classes: number of landmarks; which one a patch belongs to is added to the coarsest map.
        width: channels of the three finer levels, even; the coarsest has half as many more.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        w, deep = width, width + width // 2
        self.down = nn.ModuleList([_block(1, w), _block(w, w), _block(w, w), _block(w, deep)])
        self.kind = nn.Embedding(classes, deep)
        self.up = nn.ModuleList([_block(deep + w, w), _block(2 * w, w), _block(2 * w, w)])
        self.last = nn.Conv3d(w, 1, 1)
        in_place_of_slow_ones(self)

    def forward(self, patches: Tensor, kinds: Tensor) -> Tensor:
        """Logits (N, E, E, E) over the voxels of each patch.

        Args:
            patches: normalised image (N, 1, E, E, E).
            kinds: (N,) int64, which landmark each patch belongs to, by its place in the head's classes.

        Raises:
            UsageError: patches of another shape.
        """
        if patches.ndim != 5 or patches.shape[1] != 1 or any(n % DIVISOR for n in patches.shape[2:]):
            raise UsageError(f"patches are {tuple(patches.shape)}; give (N, 1, E, E, E), E a multiple of {DIVISOR}.")
        x = channels_last(patches)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        x = x + self.kind(kinds)[:, :, None, None, None]
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
        logits: Tensor = self.last(x)[:, 0]
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3×3 convolutions, each followed by an instance norm."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv3d(channels, outputs, 3, padding=1, bias=False))
        layers += [nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(LEAK, inplace=True)]
    return nn.Sequential(*layers)
