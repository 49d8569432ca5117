"""What one head is: its classes, and the layers that it has of its own. Pure data; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from cardiac_ct_fm.anatomy import HINGE_POINTS, HeadKind
from cardiac_ct_fm.errors import ConfigError


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
        refine: channels of the network that looks again at points (:class:`cardiac_ct_fm.refiner.PointRefiner`), 0 for
            none; only in a landmark head with the three hinge points, from which its patches get their axes.
    """

    name: str
    kind: HeadKind
    classes: tuple[str, ...]
    own_decoder: bool = False
    hidden: int = 0
    refine: int = 0

    def __post_init__(self) -> None:
        for what, channels in (("hidden", self.hidden), ("refine", self.refine)):
            if isinstance(channels, bool) or not isinstance(channels, int) or channels < 0:
                raise ConfigError(f"head {self.name!r} has {what}={channels!r}; give a number of channels, or 0.")
        if self.refine % 2 or (self.refine and not set(HINGE_POINTS) <= set(self.classes)):
            raise ConfigError(
                f"head {self.name!r} has refine={self.refine}; it must be even, and 0 in a head without the points "
                f"{', '.join(HINGE_POINTS)}."
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
