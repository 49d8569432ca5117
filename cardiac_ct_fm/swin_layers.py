"""Swin stages whose shifted windows share their attention masks; weights, their names and results are MONAI's.

When windows are shifted over the map's end, only those on its far faces mix voxels that are no neighbours. So there are
at most eight kinds of windows, each with one mask, instead of one mask per window: at 96³, feature size 48 and windows
of 7 that is 4 MB instead of 484 MB of biases per block.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import torch
from monai.networks.nets.swin_unetr import BasicLayer, SwinTransformer, WindowAttention, get_window_size
from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, int, int]

APART = -100.0
"""Added to the attention of two tokens that are no neighbours, as in Swin (Liu et al. 2021) and in MONAI."""


def share_masks(swin: SwinTransformer, stages: int) -> None:
    """Replace the first stages of a Swin transformer by :class:`SwinStage`."""
    for layers in (swin.layers1, swin.layers2, swin.layers3, swin.layers4)[:stages]:
        layers[0] = SwinStage(layers[0])


class SwinStage(nn.Module):
    """A stage of Swin blocks and the merging behind it.

    Args:
        of: MONAI's stage; its blocks are taken over.
    """

    def __init__(self, of: BasicLayer) -> None:
        super().__init__()
        self.blocks, self.downsample = of.blocks, of.downsample
        self.window_size, self.shift_size = of.window_size, of.shift_size
        for block in self.blocks:
            block.attn = ShiftedAttention(block.attn)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) → (B, 2C, X/2, Y/2, Z/2)."""
        window, shift = get_window_size(x.shape[2:], self.window_size, self.shift_size)
        grid = tuple(-(-n // w) for n, w in zip(x.shape[2:], window, strict=True))
        kinds = window_kinds(grid, window, shift, x.device)
        x = x.permute(0, 2, 3, 4, 1)
        for block in self.blocks:
            x = block(x, kinds)  # a block hands it on to its attention where it shifts
        x = self.downsample(x)
        return x.permute(0, 4, 1, 2, 3)


class ShiftedAttention(nn.Module):
    """Multi-head attention inside windows with relative position biases, fused by torch.

    Args:
        of: MONAI's attention; its weights are taken over.
    """

    def __init__(self, of: WindowAttention) -> None:
        super().__init__()
        self.num_heads = of.num_heads
        self.relative_position_bias_table = of.relative_position_bias_table
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", of.relative_position_index)
        self.qkv, self.proj, self.proj_drop = of.qkv, of.proj, of.proj_drop

    def forward(self, x: Tensor, mask: WindowKinds | None) -> Tensor:
        """Attend.

        Args:
            x: (B · windows, tokens, C).
            mask: which windows are of which kind; None where nothing was shifted.

        Returns:
            (B · windows, tokens, C).
        """
        rows, tokens, _ = x.shape
        order, back = (None, None) if mask is None else mask.order(rows)
        x = x if order is None else x[order]
        qkv = self.qkv(x).reshape(rows, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        index = self.relative_position_index[:tokens, :tokens]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)[None].to(qkv.dtype)
        if mask is None:
            attended = _attend(qkv, bias)
        else:
            parts = zip(qkv.split([rows // mask.windows * n for n in mask.counts], dim=1), mask.masks, strict=True)
            attended = torch.cat([_attend(part, bias + apart.to(bias)) for part, apart in parts])
        result: Tensor = self.proj_drop(self.proj(attended))
        return result if back is None else result[back]


class WindowKinds:
    """Windows of a shifted map, sorted by which of their tokens are neighbours.

    Args:
        grid: windows along each axis.
        window: tokens of a window along each axis.
        shift: tokens by which the map was shifted.
        device: where the masks live.

    Attributes:
        windows: number of windows.
        counts: number of windows of each kind.
        masks: (tokens, tokens) per kind, 0 or :data:`APART`.
    """

    def __init__(self, grid: Size, window: Size, shift: Size, device: torch.device) -> None:
        self.windows = grid[0] * grid[1] * grid[2]
        kinds: dict[tuple[bool, ...], list[int]] = {}
        for number, place in enumerate(product(*map(range, grid))):
            far = tuple(p == n - 1 and s > 0 for p, n, s in zip(place, grid, shift, strict=True))
            kinds.setdefault(far, []).append(number)
        self.counts = [len(numbers) for numbers in kinds.values()]
        self.masks = [_mask(far, window, shift).to(device) for far in kinds]
        self._numbers = [torch.tensor(numbers, device=device) for numbers in kinds.values()]

    def order(self, rows: int) -> tuple[Tensor, Tensor]:
        """The rows (B · windows) kind by kind, and the way back."""
        samples = torch.arange(0, rows, self.windows, device=self._numbers[0].device)
        order = torch.cat([(samples[:, None] + numbers).flatten() for numbers in self._numbers])
        return order, order.argsort()


@lru_cache(maxsize=64)
def window_kinds(grid: Size, window: Size, shift: Size, device: torch.device) -> WindowKinds:
    """The kinds of windows of a map; kept for the next time."""
    return WindowKinds(grid, window, shift, device)


def _mask(far: tuple[bool, ...], window: Size, shift: Size) -> Tensor:
    """The mask of windows that lie on the ``far`` faces: tokens from beyond a face are no neighbours of the others."""
    side = np.zeros(window, dtype=np.int64)
    for axis, (beyond, n, s) in enumerate(zip(far, window, shift, strict=True)):
        if beyond:
            side += np.expand_dims((np.arange(n) >= n - s) << axis, tuple(a for a in range(3) if a != axis))
    tokens = torch.from_numpy(side.reshape(-1))
    return (tokens[:, None] != tokens[None, :]) * APART


def _attend(qkv: Tensor, bias: Tensor) -> Tensor:
    """Attention of (3, windows, heads, tokens, C / heads), fused by torch; (windows, tokens, C)."""
    query, key, value = qkv
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return attended.transpose(1, 2).flatten(2)
