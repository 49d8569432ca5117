"""Trunks: MONAI's SwinUNETR, UNETR and DynUNet without their output convolution, behind one interface.

Building blocks and attribute names are MONAI's: a four-stage Swin trunk takes the state dict of
:class:`monai.networks.nets.SwinUNETR` without its ``out.*`` keys.
"""

from __future__ import annotations

import dataclasses

import torch
from monai.networks.blocks import UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets import UNETR, DynUNet
from monai.networks.nets.swin_unetr import PatchMerging, SwinTransformer
from torch import Tensor, nn
from torch.nn import functional

from cardiac_ct_fm.config import BackboneConfig
from cardiac_ct_fm.cpu_blocks import in_place_of_slow_blocks
from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.swin_layers import share_masks
from cardiac_ct_fm.trunk import Backbone, by_size, levels

DYNUNET_MAX_CHANNELS = 320
"""Widest 3-D stage of nnU-Net (Isensee et al., Nature Methods 2021), and of the paper's CNN (32 → 320 features)."""

DYNUNET_DROPOUT = 0.2
"""Dropout of the paper's CNN, active in training only (read from the research code)."""

UNETR_HIDDEN_PER_FEATURE = 48
"""ViT width per feature: Hatamizadeh et al. 2022 (UNETR) use 768 at feature size 16."""

UNETR_VIT_HEADS = 12
"""Attention heads of the ViT-B/16 in UNETR (Hatamizadeh et al. 2022)."""


class SwinBackbone(Backbone):
    """SwinUNETR (Hatamizadeh et al. 2022) with three or four stages, without its output convolution.

    Four stages are MONAI's SwinUNETR; with three, the bottleneck ``encoder10`` sits at stride 16 with 8 times the
    feature size and there is no ``decoder5``.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        fs, depth = config.feature_size, len(config.depths)
        self.swinViT = SwinTransformer(
            in_chans=config.in_channels,
            embed_dim=fs,
            window_size=(config.window_size,) * 3,
            patch_size=(2, 2, 2),
            depths=config.depths,
            num_heads=config.num_heads,
            downsample=PatchMerging if config.merging == "monai" else _MergingBefore15,
        )
        share_masks(self.swinViT, depth)
        self.encoder1 = _unetr_block(config.in_channels, fs)
        self.encoder2 = _unetr_block(fs, fs)
        self.encoder3 = _unetr_block(2 * fs, 2 * fs)
        self.encoder4 = _unetr_block(4 * fs, 4 * fs)
        self.encoder10 = _unetr_block(fs * 2**depth, fs * 2**depth)
        for level in range(depth, 0, -1):
            self.add_module(f"decoder{level + 1}", _unetr_up(fs * 2**level, fs * 2 ** (level - 1)))
        self.decoder1 = _unetr_up(fs, fs)
        self.feature_info = levels([fs * 2**i for i in range(depth + 1)], finest=2)
        self.decoder_info = levels([fs, *(fs * 2**i for i in range(depth))], finest=1)
        self.decoder_names = tuple(f"decoder{i}" for i in range(depth + 1, 0, -1))
        swin = ((f"swinViT.layers{i + 1}.",) for i in range(depth))
        self.stages = (("swinViT.patch_embed.",), *swin, ("encoder",), ("decoder",))

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        vit = self.swinViT
        hidden: Tensor = vit.pos_drop(vit.patch_embed(x))
        maps: list[Tensor] = [vit.proj_out(hidden, True)]
        for stage in (vit.layers1, vit.layers2, vit.layers3, vit.layers4)[: len(self.config.depths)]:
            hidden = stage[0](hidden)
            maps.append(vit.proj_out(hidden, True))
        return maps

    def _skips(self, x: Tensor) -> list[Tensor]:
        half, quarter, eighth, *deep, bottom = self._pyramid(x)
        shallow = [self.encoder1(x), self.encoder2(half), self.encoder3(quarter), self.encoder4(eighth)]
        return [*shallow, *deep, self.encoder10(bottom)]


class _MergingBefore15(nn.Module):
    """Patch merging as SwinUNETR had it up to MONAI 1.4: two of the eight voxels are read twice, two never.

    MONAI 1.5 corrected the list (Project-MONAI/MONAI issue 4757); weights trained before are only right with this one.
    """

    CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, spatial_dims: int = 3) -> None:
        super().__init__()
        del spatial_dims  # MONAI's constructor passes it; this package is three-dimensional
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z, C) → (B, X/2, Y/2, Z/2, 2C)."""
        _, depth, height, width, _ = x.shape
        x = functional.pad(x, (0, 0, 0, width % 2, 0, height % 2, 0, depth % 2))
        merged = torch.cat([x[:, i::2, j::2, k::2] for i, j, k in self.CORNERS], dim=-1)
        reduced: Tensor = self.reduction(self.norm(merged))
        return reduced


class UnetrBackbone(Backbone):
    """UNETR (Hatamizadeh et al. 2022) without its output convolution: a ViT encoder, inputs of one size only."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        fs, hidden = config.feature_size, UNETR_HIDDEN_PER_FEATURE * config.feature_size
        net = UNETR(
            in_channels=config.in_channels,
            out_channels=1,
            img_size=config.image_size,
            feature_size=fs,
            hidden_size=hidden,
            mlp_dim=4 * hidden,
            num_heads=UNETR_VIT_HEADS,
        )
        self.vit = net.vit
        self.encoder1, self.encoder2, self.encoder3, self.encoder4 = (
            net.encoder1,
            net.encoder2,
            net.encoder3,
            net.encoder4,
        )
        self.decoder_names = ("decoder5", "decoder4", "decoder3", "decoder2")
        for name in self.decoder_names:
            self.add_module(name, getattr(net, name))
        self.feature_info = levels([2 * fs, 4 * fs, 8 * fs, hidden], finest=2)
        self.decoder_info = levels([fs, 2 * fs, 4 * fs, 8 * fs], finest=1)
        layers = ((f"vit.blocks.{i}.",) for i in range(net.num_layers))
        self.stages = (("vit.patch_embedding.",), *layers, ("vit.norm.", "encoder"), ("decoder",))

    def check_input(self, x: Tensor) -> None:
        """Refuse all sizes but the one that the position embedding was made for.

        Raises:
            UsageError: another size; the message says which to pad or crop to.
        """
        size = (self.config.image_size,) * 3
        if x.ndim == 5 and tuple(x.shape[2:]) != size:
            raise UsageError(
                f"The input is {by_size(x.shape[2:])} voxels; this UNETR takes one: pad or crop to {by_size(size)}."
            )
        super().check_input(x)

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        last, layers = self.vit(x)
        grid = (len(x), self.feature_info[-1].channels, *(edge // 16 for edge in x.shape[2:]))
        third, sixth, ninth, end = (t.transpose(1, 2).reshape(grid) for t in (layers[3], layers[6], layers[9], last))
        return [self.encoder2(third), self.encoder3(sixth), self.encoder4(ninth), end]

    def _skips(self, x: Tensor) -> list[Tensor]:
        return [self.encoder1(x), *self._pyramid(x)]


class DynUnetBackbone(Backbone):
    """MONAI's DynUNet (the nnU-Net architecture, instance norm) without its output convolutions.

    With plain blocks it computes what nnU-Net's PlainConvUNet does: the biases that it lacks stand before an instance
    norm, which takes them away again.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        strides = [(1, 1, 1), *[(2, 2, 2)] * (len(config.depths) - 1), config.last_stride]
        filters = [min(config.feature_size * 2**i, DYNUNET_MAX_CHANNELS) for i in range(len(strides))]
        net = DynUNet(
            spatial_dims=3,
            in_channels=config.in_channels,
            out_channels=1,
            kernel_size=[3] * len(strides),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=filters,
            dropout=DYNUNET_DROPOUT,
            res_block=config.residual,
            trans_bias=not config.residual,
        )
        self.input_block, self.downsamples, self.bottleneck = net.input_block, net.downsamples, net.bottleneck
        self.upsamples = net.upsamples
        *inner, deepest = levels(filters[1:], finest=2)
        x, y, z = (inner[-1].stride[0] * config.last_stride[self._axes.index(axis)] for axis in range(3))
        self.feature_info = (*inner, dataclasses.replace(deepest, stride=(x, y, z)))
        self.decoder_info = levels(filters[:-1], finest=1)
        self.decoder_names = tuple(f"upsamples.{i}" for i in range(len(strides) - 1))
        down = ((f"downsamples.{i}.",) for i in range(len(strides) - 2))
        self.stages = (("input_block.",), *down, ("bottleneck.",), ("upsamples.",))

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        return self._skips(x)[1:]

    def _skips(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = [self.input_block(x)]
        for block in (*self.downsamples, self.bottleneck):
            maps.append(block(maps[-1]))
        return maps


def build_backbone(config: BackboneConfig) -> Backbone:
    """The trunk that ``config`` describes, with random weights."""
    kinds: dict[str, type[Backbone]] = {
        "swin_unetr": SwinBackbone,
        "unetr": UnetrBackbone,
        "dynunet": DynUnetBackbone,
    }
    trunk = kinds[config.architecture](config)
    in_place_of_slow_blocks(trunk)
    return trunk


def _unetr_block(in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's residual block of two 3×3×3 convolutions with instance norm."""
    block: nn.Module = UnetrBasicBlock(3, in_channels, out_channels, 3, 1, "instance", res_block=True)
    return block


def _unetr_up(in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's up-sampling block: transposed convolution by 2, skip, residual block."""
    block: nn.Module = UnetrUpBlock(3, in_channels, out_channels, 3, 2, "instance", res_block=True)
    return block
