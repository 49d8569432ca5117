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
from typing import Any

from cardiac_ct_fm.anatomy import HEADS, HeadKind
from cardiac_ct_fm.backbone_config import Architecture as Architecture
from cardiac_ct_fm.backbone_config import BackboneConfig as BackboneConfig
from cardiac_ct_fm.errors import ConfigError, WeightsError
from cardiac_ct_fm.head_config import HeadConfig as HeadConfig
from cardiac_ct_fm.look_config import COMPACT_LOOKS as COMPACT_LOOKS
from cardiac_ct_fm.look_config import DEFAULT_LOOKS as DEFAULT_LOOKS
from cardiac_ct_fm.look_config import LookConfig as LookConfig
from cardiac_ct_fm.look_config import LookName as LookName

FORMAT_VERSION = 1
"""Version of ``config.json``; raised when its meaning changes."""


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
        for kind, called in (("head", names), ("look", [k.name for k in self.looks])):
            if len(set(called)) != len(called):
                raise ConfigError(f"{kind}s {called} repeat a name; each {kind} needs its own.")
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
        _refuse_namesakes(self.heads)
        if self.looks:
            self._check_looks(set(names))

    def _check_looks(self, names: set[str]) -> None:
        """Refuse looks that read heads which are not there, and heads that no look reads."""
        unknown = {h for look in self.looks for h in look.heads} - names
        read = {h for look in self.looks for h in look.heads if look.name != "locate" or h == "heart"}
        what = f"looks read {sorted(unknown)}" if unknown else f"no look but locate reads {sorted(names - read)}"
        if unknown or names - read:
            raise ConfigError(f"{self.name} has the heads {sorted(names)}, but {what}; with_heads keeps both in step.")

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

    def with_heads(self, heads: Iterable[HeadConfig]) -> ModelConfig:
        """A copy with these heads alone, in their order; a new one is read from the looks that :meth:`with_head` gives.

        A head that the model had keeps its looks; ``detail`` goes with the last of its heads.

        Raises:
            ConfigError: heads that share a name or a class.
        """
        chosen = tuple(heads)
        known = {h.name for h in self.heads}
        kept = tuple(h for h in chosen if h.name in known)
        config = self.replace(heads=kept, looks=_looks_for(kept, self.looks))
        for head in chosen:
            if head.name not in known:
                config = config.with_head(head)
        return config.replace(heads=chosen)

    def with_head(self, head: HeadConfig, looks: Iterable[LookName] | None = None) -> ModelConfig:
        """A copy with one more head.

        Args:
            head: the new head.
            looks: names of the looks that it is read from; ``detail`` is made from ``root`` where the model has none,
                ``locate`` is for the head that finds the heart. All but ``locate`` when None, for ``heart`` that too.

        Raises:
            ConfigError: no such look, or one for another head, or a head of this name or with a class of this name.
        """
        if looks is None:
            looks = [k.name for k in self.looks if k.name != "locate" or head.name == "heart"]
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

        Looks of earlier files still list heads that were not saved; these are taken out.

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
            data["looks"] = _looks_for(data["heads"], [_build(LookConfig, look) for look in data["looks"]])
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


def _looks_for(heads: Iterable[HeadConfig], looks: Iterable[LookConfig]) -> tuple[LookConfig, ...]:
    """The looks without heads that are not there; ``detail`` goes with the last of its heads."""
    names = {h.name for h in heads}
    own = [dataclasses.replace(k, heads=tuple(h for h in k.heads if h in names)) for k in looks]
    return tuple(k for k in own if k.heads or k.name != "detail")


def _refuse_namesakes(heads: Iterable[HeadConfig]) -> None:
    """Refuse two heads of one kind with a class of the same name: volumes, points and figures are told by it alone."""
    owners: dict[tuple[HeadKind, str], str] = {}
    for head in heads:
        for name in head.classes:
            first = owners.setdefault((head.kind, name), head.name)
            if first != head.name:
                raise ConfigError(
                    f"The heads {first!r} and {head.name!r} both have a class {name!r}, and results are told apart by "
                    f"that name alone. Give it another name in {head.name!r}, or load the model without {first!r} "
                    "(from_pretrained(…, heads=[…]))."
                )


_LATER_KEYS: dict[type[Any], set[str]] = {HeadConfig: {"hidden", "refine"}}
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
