"""Settings of a trunk, checked: architecture, sizes, and how its weights see an image. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cardiac_ct_fm.errors import ConfigError

Architecture = Literal["swin_unetr", "unetr", "dynunet"]


@dataclass(frozen=True)
class BackboneConfig:
    """A trunk that maps (B, in_channels, X, Y, Z) to a full-resolution feature map.

    Attributes:
        architecture: ``swin_unetr`` (the foundation trunk), ``unetr`` or ``dynunet`` (the nnU-Net architecture).
        feature_size: channels at full resolution; 48 is the paper's.
        depths: Swin blocks per stage; its length (3 or 4) is the number of stages. Four stages are MONAI's
            SwinUNETR exactly. For ``dynunet`` only its length counts: the number of times the resolution is halved.
        num_heads: attention heads per stage (Swin only).
        window_size: edge of the attention window in tokens; 7 is the paper's.
        in_channels: 1, or 1 + 7 when conditioned on the one-hot heart segmentation.
        image_size: edge length of the training window in voxels (UNETR's position embedding needs it).
        residual: residual blocks (MONAI's DynUNet) or the plain ones of nnU-Net (``dynunet`` only).
        last_stride: step into the deepest stage per axis (``dynunet`` only); the paper's CNN has (2, 2, 1).
        orientation: where the axes of the trunk's own arrays point to. Callers always give and get RAS; the trunk
            turns what it is given. Weights of others were trained on other axes, for example ``SPL`` for arrays as
            SimpleITK gives them (z, y, x of an LPS image).
        merging: ``monai``, or ``monai<1.5``: up to MONAI 1.4, SwinUNETR's patch merging read two of eight voxels
            twice and left two out; weights trained so need it so.
    """

    architecture: Architecture = "swin_unetr"
    feature_size: int = 48
    depths: tuple[int, ...] = (2, 2, 2, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    in_channels: int = 1
    image_size: int = 96
    residual: bool = True
    last_stride: tuple[int, int, int] = (2, 2, 2)
    orientation: str = "RAS"
    merging: Literal["monai", "monai<1.5"] = "monai"

    def __post_init__(self) -> None:
        if sorted("RAS"["RASLPI".index(c) % 3] if c in "RASLPI" else c for c in self.orientation) != ["A", "R", "S"]:
            raise ConfigError(f"backbone.orientation {self.orientation!r} must name R/L, A/P and S/I, once each.")
        if self.merging not in ("monai", "monai<1.5"):
            raise ConfigError(f"backbone.merging is {self.merging!r}; choose 'monai' or 'monai<1.5'.")
        if self.architecture not in ("swin_unetr", "unetr", "dynunet"):
            raise ConfigError(f"backbone.architecture {self.architecture!r} is not swin_unetr, unetr or dynunet.")
        if self.feature_size < 1:
            raise ConfigError(f"backbone.feature_size is {self.feature_size}; it must be positive.")
        if self.architecture == "swin_unetr":
            if self.feature_size % 12:
                raise ConfigError(f"backbone.feature_size is {self.feature_size}; a Swin trunk needs a multiple of 12.")
            if len(self.depths) not in (3, 4) or len(self.num_heads) != len(self.depths):
                raise ConfigError(
                    f"backbone.depths {self.depths} and num_heads {self.num_heads} must both have 3 or 4 entries."
                )
        if self.architecture == "dynunet" and len(self.depths) < 2:
            raise ConfigError(f"backbone.depths {self.depths} must have at least 2 entries for a DynUNet.")
        if self.architecture == "unetr" and self.image_size % 16:
            raise ConfigError(
                f"backbone.image_size is {self.image_size}; a UNETR needs a multiple of 16, for example "
                f"{-(-self.image_size // 16) * 16}."
            )

    @property
    def divisor(self) -> int:
        """Every spatial size of the input must be a multiple of this many voxels."""
        if self.architecture == "swin_unetr":
            return 1 << (len(self.depths) + 1)
        if self.architecture == "dynunet":
            return 1 << len(self.depths)
        return 16
