"""The research code's networks, rebuilt for tests from its documented layouts (keys, axes, label channel).

They take arrays in the order (z, y, x) of an LPS image, and the heart label map as one integer channel, as that code
does; see ``cardiac_ct_fm/checkpoints.py``.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import UnetOutBlock
from monai.networks.nets import UNETR, SwinUNETR
from torch import Tensor, nn

HEADS = {"hps": 6, "ms": 3, "calc": 2}


def settings(module: nn.Module, task: int, conditioned: bool) -> None:
    """The buffers in which that code keeps its settings."""
    values = {"fed_task": task, "patches": 1, "deep_supervision": 0, "condition_on_seg": conditioned, "output_seg": 0}
    for name, value in values.items():
        module.register_buffer(name, torch.tensor(float(value)))


class OldMerging(nn.Module):
    """Patch merging as in MONAI 1.4, written out."""

    def __init__(self, dim: int, norm_layer: type[nn.LayerNorm] = nn.LayerNorm, spatial_dims: int = 3) -> None:
        super().__init__()
        assert spatial_dims == 3
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = slice(0, None, 2), slice(1, None, 2)
        parts = [
            x[:, even, even, even],
            x[:, odd, even, even],
            x[:, even, odd, even],
            x[:, even, even, odd],
            x[:, odd, even, odd],
            x[:, even, odd, even],
            x[:, even, even, odd],
            x[:, odd, odd, odd],
        ]
        return self.reduction(self.norm(torch.cat(parts, -1)))


def old_swin(in_channels: int, out_channels: int, window_size: int = 7) -> SwinUNETR:
    """SwinUNETR of MONAI 1.4: today's class with the merging of then."""
    return SwinUNETR(in_channels, out_channels, feature_size=12, window_size=window_size, downsample=OldMerging)


class OriginalSwin(nn.Module):
    def __init__(self, conditioned: bool, task: int = 0) -> None:
        super().__init__()
        settings(self, task, conditioned)
        self.swin_unetr = old_swin(2 if conditioned else 1, 1)
        self.outs = nn.ModuleDict({name: UnetOutBlock(3, 12, channels) for name, channels in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: list[Tensor] = []
        hook = self.swin_unetr.decoder1.register_forward_hook(lambda _module, _inputs, out: features.append(out))
        self.swin_unetr(x)
        hook.remove()
        return {name: head(features[0]) for name, head in self.outs.items()}


class OriginalUnetr(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        settings(self, 0, False)
        net = UNETR(1, 1, img_size=32, feature_size=1, hidden_size=48, mlp_dim=192)
        for name, child in net.named_children():
            if name != "out":
                self.add_module(name, child)
        self.outs = nn.ModuleDict({name: UnetOutBlock(3, 1, channels) for name, channels in HEADS.items()})
        self._net = [net]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: list[Tensor] = []
        hook = self.decoder2.register_forward_hook(lambda _module, _inputs, out: features.append(out))
        self._net[0](x)
        hook.remove()
        return {name: head(features[0]) for name, head in self.outs.items()}


class ConvDropoutNormReLU(nn.Module):
    """nnU-Net's block; each of its parts is in the state dict twice, as there."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=True)
        self.dropout = nn.Dropout3d(0.2)
        self.norm = nn.InstanceNorm3d(outputs, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU()
        self.all_modules = nn.Sequential(self.conv, self.dropout, self.norm, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class StackedConvBlocks(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvDropoutNormReLU(inputs, outputs, stride), ConvDropoutNormReLU(outputs, outputs, (1, 1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class _Encoder(nn.Module):
    def __init__(self, inputs: int, widths: list[int], strides: list[tuple[int, int, int]]) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        self.stages = nn.Sequential(
            *(nn.Sequential(StackedConvBlocks(a, b, s)) for a, b, s in zip(sizes, sizes[1:], strides, strict=False))
        )


class _Decoder(nn.Module):
    def __init__(self, encoder: _Encoder, widths: list[int], strides: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.encoder = encoder
        down = list(zip(widths[::-1], widths[-2::-1], strides[::-1], strict=False))
        self.stages = nn.ModuleList(StackedConvBlocks(2 * skip, skip, (1, 1, 1)) for _, skip, _ in down)
        self.transpconvs = nn.ModuleList(nn.ConvTranspose3d(below, skip, s, s) for below, skip, s in down)


class _PlainConvUNet(nn.Module):
    def __init__(self, inputs: int, widths: list[int], strides: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.encoder = _Encoder(inputs, widths, strides)
        self.decoder = _Decoder(self.encoder, widths, strides)


class OriginalUNet(nn.Module):
    """nnU-Net's plain U-Net with a list of heads per task, coarse to fine; the last stride is 2×2×1."""

    def __init__(self, conditioned: bool, task: int = 0) -> None:
        super().__init__()
        settings(self, task, conditioned)
        widths, strides = [4, 8, 16, 32], [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 1)]
        self.model = _PlainConvUNet(2 if conditioned else 1, widths, strides)
        self.seg_layers = nn.ModuleDict(
            {n: nn.ModuleList(nn.Conv3d(w, c, 1) for w in widths[-2::-1]) for n, c in HEADS.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        skips = []
        for stage in self.model.encoder.stages:
            x = stage(x)
            skips.append(x)
        decoder = self.model.decoder
        for up, stage, skip in zip(decoder.transpconvs, decoder.stages, skips[-2::-1], strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        return {name: layers[-1](x) for name, layers in self.seg_layers.items()}
