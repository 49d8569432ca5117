"""What a federation is asked to do: every flag, its meaning and its limits, checked before any round starts.

Pure data without torch. The names follow the research code's command line where it has a counterpart
(``README.md`` has the table); defaults are its settings, read from the code that came with the paper.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cardiac_ct_fm.errors import ConfigError

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("kd", "hps", "ms", "calc"),
    "method": ("kd", "condist", "fedavg", "local"),
    "mode": ("train", "test"),
    "stage": ("teach", "label", "distil", "test"),
    "model_type": ("swin_unetr", "unet", "unetr"),
    "teacher_type": ("swin_unetr", "unet", "unetr"),
    "size": ("smoke", "tiny", "small", "base"),
    "weighting": ("samples", "equal"),
    "uncertainty": ("shifts", "flips"),
    "pseudo_labels": ("weight", "drop", "keep"),
    "precision": ("auto", "float32", "bfloat16"),
}
"""Settings that are one of a few words."""

METHODS = ("local", "fedavg", "condist", "kd")
"""Compared with one another in this order: the cheapest first."""

NETWORKS = ("unet", "swin_unetr")
"""Architectures of the paper's table."""

LOOKS = ("locate", "heart", "root")
"""The looks of :class:`cardiac_ct_fm.config.LookConfig`, coarse to fine."""

POINT_TASKS = ("hps", "ms", "calc")
"""The label types that experts provide; each has a teacher of its own."""


@dataclass(frozen=True)
class Settings:
    """One federated experiment.

    Attributes:
        task: ``kd`` trains one network with all heads; ``hps``, ``ms`` or ``calc`` train one task network.
        method: ``kd`` (teach, label, distil), ``condist`` (one stage, the global model answers for missing labels),
            ``fedavg`` (one stage, real labels only) or ``local`` (each site alone, all of them tested everywhere).
        locations: sites that take part in training.
        test_locations: sites to test on; all locations when empty.
        holdings: label types of sites that are not the paper's, as ``name=heart,hps``.
        mode: ``train``, or ``test`` a checkpoint without training.
        stage: how far to go now; a later run goes on from there.
        rounds: rounds of each training step.
        teacher_rounds: rounds of the task networks that teach; as many as ``rounds`` when 0.
        epochs: passes over a site's scans per round.
        batch_size: scans per optimiser step.
        batch_maxnum: most optimiser steps per epoch; 0 for no limit.
        looks: looks that the network with all heads is trained on (locate, heart, root); all of them when empty. A
            network without all three cannot find the heart in a whole scan.
        looks_per_scan: labelled windows drawn from a scan per pass; the paper draws 4.
        test_ratio: share of a site's patients that is never trained on.
        test_on_global_updates: test the averaged network after every round.
        test_on_local_updates: test each site's own network before it is averaged.
        exp_name: name of the experiment; its folder and the weights' tag.
        tags: words for people, kept in ``settings.json`` and the model card.
        ckpt: weights (a model name, folder or ``.safetensors``) to start from or to test; kept on the server. Teachers
            with the same trunk (same architecture, no condition_on_seg) start from them too, others from nothing.
        finetune: train the heads only; the trunk stays as in ``ckpt``. Teachers train whole.
        condition_on_seg: task networks see the one-hot heart segmentation beside the image.
        output_seg: networks get a heart head and train it on the heart segmentation.
        patches: edge in voxels of random windows within a look; 0 takes the whole look.
        model_type: architecture of the network that comes out.
        teacher_type: architecture of the task networks that teach it.
        size: how large the networks are.
        lr: learning rate; 0 takes the architecture's own (8e-4 for transformers, 1e-2 for the U-Net, as the paper's).
            With ckpt, teachers that do not start from it learn at their own.
        weight_decay: AdamW's.
        precision: of the networks' arithmetic at the sites; auto takes bfloat16 where a site's GPU or CPU has it in
            hardware. Losses, parameters and averages are float32.
        weighting: average sites by their number of labelled scans, or equally.
        fedprox_mu: weight of FedProx' proximal term (Li et al. 2020); 0 is FedAvg.
        soft_targets: weight of the distillation towards the teachers' probabilities beside hard labels.
        temperature: of those probabilities.
        uncertainty: how teachers doubt: windows moved by a few mm, or mirrored (mirrors swap left and right).
        uncertainty_samples: answers per scan, the undisturbed one included.
        pseudo_labels: use them weighted by certainty, drop the uncertain, or keep all.
        max_spread_mm: spread of a point's answers above which ``drop`` drops it; half of that weighs 1/e in ``weight``.
        min_agreement: Dice among answers below which ``drop`` drops a segmentation.
        dp_noise: noise multiplier of the Gaussian mechanism at each site; 0 turns differential privacy off.
        dp_clip: L2 norm that a site's update is clipped to before noise is added.
        dp_delta: the δ that the accountant's ε is given for.
        quorum: sites that must answer a round; 0 means all that were asked.
        round_timeout_s: longest time of one round; 0 for none.
        grace_s: time that late sites get once the quorum is reached.
        rounds_per_job: rounds after which a deployed job ends and the next begins; a site that returns joins there.
            0 puts everything into one job.
        local: one machine, digital sites of the cohort.
        scans: digital scans per site, at most the paper's number of CTs.
        labelled: of these, labelled ones per label type that the site holds.
        variants: different windows of a scan before they repeat (they are then kept in memory); 0 never repeats.
        seed: of splits, initial weights and everything drawn.
        threads: CPU threads per site; 0 leaves torch's own choice.
    """

    task: str = "kd"
    method: str = "kd"
    locations: tuple[str, ...] = ()
    test_locations: tuple[str, ...] = ()
    holdings: tuple[str, ...] = ()
    mode: str = "train"
    stage: str = "test"
    rounds: int = 10
    teacher_rounds: int = 0
    epochs: int = 1
    batch_size: int = 1
    batch_maxnum: int = 0
    looks: tuple[str, ...] = ()
    looks_per_scan: int = 4
    test_ratio: float = 0.2
    test_on_global_updates: bool = False
    test_on_local_updates: bool = False
    exp_name: str = "fedkd"
    tags: tuple[str, ...] = ()
    ckpt: str = ""
    finetune: bool = False
    condition_on_seg: bool = False
    output_seg: bool = True
    patches: int = 0
    model_type: str = "swin_unetr"
    teacher_type: str = "unet"
    size: str = "tiny"
    lr: float = 0.0
    weight_decay: float = 0.01
    precision: str = "auto"
    weighting: str = "samples"
    fedprox_mu: float = 0.0
    soft_targets: float = 0.0
    temperature: float = 2.0
    uncertainty: str = "shifts"
    uncertainty_samples: int = 4
    pseudo_labels: str = "weight"
    max_spread_mm: float = 4.0
    min_agreement: float = 0.5
    dp_noise: float = 0.0
    dp_clip: float = 1.0
    dp_delta: float = 1e-5
    quorum: int = 0
    round_timeout_s: int = 0
    grace_s: int = 30
    rounds_per_job: int = 0
    local: bool = False
    scans: int = 40
    labelled: int = 16
    variants: int = 0
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(_unknown(name, getattr(self, name), known))
        if not self.locations:
            raise ConfigError(
                "locations is empty; name the sites that take part, for example --locations site-1 site-2."
            )
        if len(set(self.locations)) != len(self.locations):
            raise ConfigError(f"locations {', '.join(self.locations)} name a site twice; name each once.")
        if not self.exp_name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"exp_name {self.exp_name!r} must be letters, digits, '-' or '_'.")
        if dashed := [tag for tag in self.tags if tag.startswith("-")]:
            raise ConfigError(f"tags has {dashed[0]!r}, which a command takes for an option; begin it with a letter.")
        self._check_ranges()
        self._check_combinations()

    def _check_ranges(self) -> None:
        positive = ("rounds", "epochs", "batch_size", "looks_per_scan", "uncertainty_samples", "scans", "labelled")
        limits: dict[str, tuple[float, float]] = dict.fromkeys(positive, (1, float("inf")))
        limits |= dict.fromkeys(
            ("teacher_rounds", "batch_maxnum", "patches", "lr", "weight_decay", "fedprox_mu", "soft_targets",
             "dp_noise", "quorum", "round_timeout_s", "grace_s", "rounds_per_job", "variants", "seed", "threads"),
            (0, float("inf")),
        )  # fmt: skip
        limits |= {"min_agreement": (0, 1)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie in {low:g}…{high:g}.")
        for name in ("temperature", "max_spread_mm", "dp_clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive.")
        for name in ("test_ratio", "dp_delta"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1, for example 0.2.")
        if self.quorum > len(self.locations):
            raise ConfigError(
                f"quorum is {self.quorum} but {len(self.locations)} sites take part; choose at most that many."
            )

    def _check_combinations(self) -> None:
        for look in self.looks:
            if look not in LOOKS:
                raise ConfigError(_unknown("looks", look, LOOKS))
        if self.looks and "root" not in self.looks:
            raise ConfigError(
                f"looks is {' '.join(self.looks)}; points and calcium are trained and tested in the root look, so add "
                "root."
            )
        if self.task != "kd" and self.method not in ("fedavg", "local"):
            raise ConfigError(
                f"method {self.method!r} trains all heads and cannot train task {self.task!r} alone; choose "
                "--method fedavg or local, or --task kd."
            )
        if self.mode == "test" and not self.ckpt:
            raise ConfigError("mode 'test' has nothing to test; give --ckpt, for example a folder written by export.")
        if self.finetune and not self.ckpt:
            raise ConfigError("finetune trains heads on a frozen trunk, so it needs trained weights: give --ckpt.")
        if self.condition_on_seg and self.task != "kd" and self.output_seg:
            raise ConfigError(
                "condition_on_seg shows the network the heart segmentation and output_seg asks it for the same; "
                "choose one: --no-output-seg or --no-condition-on-seg."
            )
        if self.task == "kd" and not self.output_seg:
            raise ConfigError(
                "The network of task 'kd' finds the heart first, so it needs its head: leave output_seg on."
            )
        if self.condition_on_seg and self.task == "kd" and self.method != "kd":
            raise ConfigError(
                f"condition_on_seg is for task networks; method {self.method!r} has none. Leave it out, or use "
                "--method kd."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the inverse of :meth:`from_dict`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Settings:
        """Read :meth:`to_dict`; unknown names are errors.

        Raises:
            ConfigError: not such settings.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in raw:
            if name not in known:
                raise ConfigError(_unknown("setting", name, known))
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**values)

    def replace(self, **changes: Any) -> Settings:
        """A checked copy with some settings changed."""
        return dataclasses.replace(self, **changes)

    def for_sites(self) -> Settings:
        """What sites are told: everything but the place of the checkpoint, which stays on the server."""
        return self.replace(ckpt="on the server") if self.ckpt else self

    def fingerprint(self) -> str:
        """Identity of what decides the weights; a breakpoint of other settings is never continued."""
        free = {"quorum", "round_timeout_s", "grace_s", "rounds_per_job", "threads", "tags", "test_locations", "stage"}
        kept = {k: v for k, v in self.to_dict().items() if k not in free}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _unknown(what: str, value: object, known: Sequence[str]) -> str:
    near = get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{what} is {value!r}.{hint} Choose one of: {', '.join(known)}."
