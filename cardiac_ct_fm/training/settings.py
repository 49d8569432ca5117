"""How a head is fine-tuned: settings with their reasons and their limits. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cardiac_ct_fm.config import LookName
from cardiac_ct_fm.errors import ConfigError

Part = Literal["head", "decoder", "all"]
"""``head``: the head alone, on features that never change. ``decoder``: and a copy of the trunk's decoder that belongs
to the head. ``all``: the whole network; the other heads learn on from their own earlier answers, and the trunk is a new
one."""

LEARNING_RATES: dict[str, float] = {"head": 5e-2, "decoder": 1e-3, "all": 3e-4}
"""Learning rates of the head by part: a lone convolution is a convex problem and takes large steps (coronaries of six
digital patients stood still after 50 updates with 1e-1); the paper trained its transformer from nothing with 8e-4."""


HIDDEN_RATE = 1e-2
"""Learning rate of a head with hidden layers on a trunk that does not change; chosen, no other was compared."""

HIDDEN_CHANNELS = 16
"""Channels of the hidden layers that heads of thin trees get; chosen. ``docs/finetuning.md`` records what was tried and
what the last layer alone finds."""


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of a fine-tuning.

    Attributes:
        train: see :data:`Part`.
        hidden: channels of two hidden layers of the head (:class:`cardiac_ct_fm.heads.HiddenHead`), 0 for none. None:
            :data:`HIDDEN_CHANNELS` for thin trees that are learned with ``train="head"``, else none.
        epochs: at most; early stopping may end sooner.
        lr: learning rate of the head; None takes :data:`LEARNING_RATES`, or :data:`HIDDEN_RATE`.
        layer_decay: factor per stage towards the input.
        weight_decay: of AdamW.
        patch: edge of a window in voxels.
        looks: looks whose spacing windows have, and from which prediction reads the head. None: ``detail`` (1 mm over
            all chambers) for thin trees, which 2 mm cannot show; else ``heart`` and ``root``.
        windows: windows per scan and epoch.
        batch_size: windows per update.
        validation: share of patients set aside where the data list has no validation scans; 0 for none.
        patience: epochs without a better validation Dice after which training stops, once it is above 0.
        thin: whether the head is a thin tree, None: coronaries are. Centrelines count then (clDice), and with
            ``train="head"`` blocks of windows are learned, all but a scan's first window varied, without class
            weights; ``hidden`` has no part in that.
        cache_gb: size of the cache of features on disk (``train="head"``).
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    train: Part = "head"
    hidden: int | None = None
    epochs: int = 40
    lr: float | None = None
    layer_decay: float = 0.75
    weight_decay: float = 0.01
    patch: int = 64
    looks: tuple[LookName, ...] | None = None
    windows: int = 4
    batch_size: int = 2
    validation: float = 0.2
    patience: int = 10
    thin: bool | None = None
    cache_gb: float = 4.0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.train not in get_args(Part):
            raise ConfigError(f"train is {self.train!r}; choose {', '.join(get_args(Part))}.")
        for name in ("epochs", "patch", "windows", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.hidden is not None and self.hidden < 0:
            raise ConfigError(f"hidden is {self.hidden}; give a number of channels, or 0 for no hidden layers.")
        if self.lr is not None and self.lr <= 0:
            raise ConfigError(f"lr is {self.lr}; it must be positive.")
        if not 0 < self.layer_decay <= 1 or self.weight_decay < 0:
            raise ConfigError(
                f"layer_decay is {self.layer_decay} and weight_decay {self.weight_decay}; the first must lie in (0, 1] "
                "and the second must not be negative."
            )
        if not 0 <= self.validation < 1 or self.cache_gb < 0 or self.seed < 0:
            raise ConfigError(
                f"validation is {self.validation}, cache_gb {self.cache_gb}, seed {self.seed}; validation must be a "
                "share below 1, and none of them negative."
            )
        looks = get_args(LookName) if self.looks is None else self.looks
        if not looks or not set(looks) <= set(get_args(LookName)) or len(set(looks)) != len(looks):
            raise ConfigError(f"looks are {list(looks)}; choose among {', '.join(get_args(LookName))}, each once.")

    def learning_rate(self, head: str) -> float:
        """Learning rate of a head."""
        if self.lr is not None:
            return self.lr
        return HIDDEN_RATE if self.train == "head" and self.hidden_for(head) else LEARNING_RATES[self.train]

    def hidden_for(self, head: str) -> int:
        """Channels of the hidden layers of a head."""
        if self.hidden is not None:
            return self.hidden
        return HIDDEN_CHANNELS if self.train == "head" and self.thin_head(head) else 0

    def looks_for(self, head: str) -> tuple[LookName, ...]:
        """The looks of a head."""
        if self.looks is not None:
            return self.looks
        return ("detail",) if self.thin_head(head) else ("heart", "root")

    def thin_head(self, head: str) -> bool:
        """Whether a head is a thin tree."""
        from cardiac_ct_fm.training.metrics import is_thin

        return is_thin(head) if self.thin is None else self.thin
