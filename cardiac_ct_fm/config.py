"""Frozen settings that travel with a model as ``config.json``: backbone, heads, preprocessing, looks, provenance.

Pure data with checks and JSON in and out; no torch. A model's weights are only right together with these
settings, so prediction reads all of them from here and has no defaults of its own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cardiac_ct_fm.anatomy import HEADS, HeadKind
from cardiac_ct_fm.backbone_config import Architecture as Architecture
from cardiac_ct_fm.backbone_config import BackboneConfig as BackboneConfig
from cardiac_ct_fm.errors import ConfigError, WeightsError

FORMAT_VERSION = 1
"""Version of ``config.json``; raised when its meaning changes."""


@dataclass(frozen=True)
class HeadConfig:
    """One task head: a 1×1×1 convolution on the trunk's last map, or a small network on it.

    Attributes:
        name: head name, unique in a model.
        kind: ``segmentation`` or ``landmarks``.
        classes: class names without the background.
        own_decoder: whether the head has a decoder of its own instead of reading the trunk's last map.
        hidden: channels of its two hidden layers, which also read the image (:class:`cardiac_ct_fm.heads.HiddenHead`);
            0 for a 1×1×1 convolution alone.
    """

    name: str
    kind: HeadKind
    classes: tuple[str, ...]
    own_decoder: bool = False
    hidden: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.hidden, bool) or not isinstance(self.hidden, int) or self.hidden < 0:
            raise ConfigError(
                f"head {self.name!r} has hidden={self.hidden!r}; give a number of channels, or 0 for none."
            )
        if not self.name.isidentifier():
            raise ConfigError(f"head name {self.name!r} must be a Python identifier, for example 'coronaries'.")
        if self.kind not in ("segmentation", "landmarks"):
            raise ConfigError(f"head {self.name!r} has kind {self.kind!r}; choose segmentation or landmarks.")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"head {self.name!r} needs at least one class, each named once; got {self.classes}.")

    @classmethod
    def builtin(cls, name: str) -> HeadConfig:
        """The configuration of a head of :data:`cardiac_ct_fm.anatomy.HEADS`."""
        from cardiac_ct_fm.anatomy import head_spec

        spec = head_spec(name)
        return cls(spec.name, spec.kind, spec.classes)

    @property
    def channels(self) -> int:
        """Output channels, background included."""
        return len(self.classes) + 1


@dataclass(frozen=True)
class IntensityConfig:
    """How Hounsfield units become network input: ``(clip(HU, low, high) - mean) / std``.

    The defaults are whole-ROI statistics of the paper's cohort (mean −440 HU, SD 521 HU, and its lower clip
    −1024 HU; read from the research code). The upper clip is 1500 HU, the upper end of valve calcium, because
    the cohort's own 696 HU would hide calcium behind contrast.
    """

    low_hu: float = -1024.0
    high_hu: float = 1500.0
    mean_hu: float = -440.0
    std_hu: float = 521.0

    def __post_init__(self) -> None:
        if not self.low_hu < self.high_hu or self.std_hu <= 0:
            raise ConfigError(f"intensity {self} needs low_hu < high_hu and std_hu > 0.")


LookName = Literal["locate", "heart", "root", "detail"]


@dataclass(frozen=True)
class LookConfig:
    """One look at the scan: a cubic window at one spacing.

    Attributes:
        name: ``locate`` (where is the heart), ``heart`` (chambers, where is the root), ``root``, or ``detail``: as fine
            as ``root`` over all chambers, for a head that needs it there; models have it only with such a head.
        spacing_mm: isotropic voxel size.
        window: edge length in voxels.
        heads: heads that are read from this look.
    """

    name: LookName
    spacing_mm: float
    window: int
    heads: tuple[str, ...]

    @property
    def extent_mm(self) -> float:
        """Edge length of the window in mm."""
        return self.spacing_mm * self.window


DEFAULT_LOOKS: tuple[LookConfig, ...] = (
    LookConfig("locate", 4.0, 96, ("heart",)),
    LookConfig("heart", 2.0, 96, ("heart", "hps", "ms")),
    LookConfig("root", 1.0, 96, ("heart", "hps", "ms", "calc")),
)
"""Three looks of one 96³ window each: 384, 192 and 96 mm."""

COMPACT_LOOKS: tuple[LookConfig, ...] = (
    LookConfig("locate", 4.0, 64, ("heart",)),
    LookConfig("heart", 2.0, 80, ("heart", "hps", "ms")),
    LookConfig("root", 1.0, 64, ("heart", "hps", "ms", "calc")),
)
"""Smaller windows for training and predicting on two cores: 256, 160 and 64 mm; longer hearts take more windows."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that has to be known to run a model's weights, and where they came from.

    Attributes:
        name: model name, for example ``cardiac_swin_tiny``.
        backbone: the trunk.
        heads: the heads, in the order of their weights' use.
        intensity: normalisation of Hounsfield units.
        looks: the looks, coarse to fine.
        condition_on_seg: whether the trunk sees the one-hot heart segmentation beside the image.
        provenance: how the weights were made (data, recipe, seed, commit, metrics); empty when random.
        format_version: see :data:`FORMAT_VERSION`.
    """

    name: str = "cardiac_swin_base"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    heads: tuple[HeadConfig, ...] = tuple(HeadConfig.builtin(h) for h in ("heart", "hps", "ms", "calc"))
    intensity: IntensityConfig = IntensityConfig()
    looks: tuple[LookConfig, ...] = DEFAULT_LOOKS
    condition_on_seg: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        names = [h.name for h in self.heads]
        if len(set(names)) != len(names):
            raise ConfigError(f"heads {names} repeat a name; each head needs its own.")
        expected = 1 + (len(HEADS["heart"].classes) if self.condition_on_seg else 0)
        if self.backbone.in_channels != expected:
            raise ConfigError(
                f"backbone.in_channels is {self.backbone.in_channels} but condition_on_seg={self.condition_on_seg} "
                f"needs {expected}."
            )
        for look in self.looks:
            if look.window % self.backbone.divisor:
                raise ConfigError(
                    f"look {look.name!r} has a window of {look.window} voxels; this trunk needs a multiple of "
                    f"{self.backbone.divisor}."
                )

    def head(self, name: str) -> HeadConfig:
        """The head called ``name``.

        Raises:
            ConfigError: the model has no such head.
        """
        for h in self.heads:
            if h.name == name:
                return h
        raise ConfigError(f"{self.name} has no head {name!r}; it has {', '.join(h.name for h in self.heads)}.")

    def look(self, name: LookName) -> LookConfig:
        """The look called ``name``.

        Raises:
            ConfigError: the model has no such look.
        """
        for look in self.looks:
            if look.name == name:
                return look
        raise ConfigError(f"{self.name} has no look {name!r}; it has {', '.join(k.name for k in self.looks)}.")

    def with_head(self, head: HeadConfig, looks: Iterable[LookName]) -> ModelConfig:
        """A copy with one more head.

        Args:
            head: the new head.
            looks: names of the looks that it is read from; ``detail`` is made from ``root`` where the model has none,
                ``locate`` is for the head that finds the heart.

        Raises:
            ConfigError: no such look, or one for another head, or a head of this name.
        """
        wanted, own = set(looks), self.looks
        if "locate" in wanted and head.name != "heart":
            fine = [k.name for k in own if k.name != "locate"]
            raise ConfigError(f"look 'locate' is for the head 'heart' alone; {head.name!r} can have {', '.join(fine)}.")
        if "detail" in wanted and not any(k.name == "detail" for k in own):
            own = (*own, dataclasses.replace(self.look("root"), name="detail", heads=()))
        chosen = {self.replace(looks=own).look(name).name for name in wanted}
        extended = tuple(
            dataclasses.replace(k, heads=(*k.heads, head.name)) if k.name in chosen and head.name not in k.heads else k
            for k in own
        )
        return self.replace(heads=(*self.heads, head), looks=extended)

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelConfig:
        """The inverse of :meth:`to_dict`; unknown or missing keys are errors, never ignored.

        Raises:
            WeightsError: not a configuration of this format version.
        """
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise WeightsError(
                f"config.json has format_version {version!r}; this version of cardiac-ct-fm reads "
                f"{FORMAT_VERSION}. Install the version that wrote it."
            )
        try:
            data = dict(raw)
            data["backbone"] = _build(BackboneConfig, data["backbone"])
            data["heads"] = tuple(_build(HeadConfig, h) for h in data["heads"])
            data["intensity"] = _build(IntensityConfig, data["intensity"])
            data["looks"] = tuple(_build(LookConfig, look) for look in data["looks"])
            built: ModelConfig = _build(cls, data)
            return built
        except (KeyError, TypeError) as error:
            raise WeightsError(f"config.json is not a model configuration: {error}.") from error

    @classmethod
    def load(cls, path: Path) -> ModelConfig:
        """Read ``config.json``.

        Raises:
            WeightsError: the file is missing or not a configuration.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise WeightsError(
                f"{path} does not exist; a model folder holds config.json and model.safetensors."
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise WeightsError(f"{path} is not JSON: {error}.") from error
        if not isinstance(raw, dict):
            raise WeightsError(f"{path} holds a {type(raw).__name__}, not a model configuration.")
        return cls.from_dict(raw)


_LATER_KEYS: dict[type[Any], set[str]] = {HeadConfig: {"hidden"}}
"""Keys that the first published files have not; their defaults are what was meant."""


def _build(kind: type[Any], raw: dict[str, Any]) -> Any:
    """``kind(**raw)`` with JSON lists turned into tuples.

    Raises:
        TypeError: a key is missing or unknown.
    """
    missing = {f.name for f in dataclasses.fields(kind)} - set(raw) - _LATER_KEYS.get(kind, set())
    if missing:
        raise TypeError(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
