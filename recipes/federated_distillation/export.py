"""From a finished experiment to published weights: safetensors, configuration, model card with provenance."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm.cohort.sites import SITE_SEEDS
from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.publish import export_pretrained
from recipes.federated_distillation.checkpoint import public_name
from recipes.federated_distillation.networks import begins_at_checkpoint
from recipes.federated_distillation.plan import Step, final_step, make_plan
from recipes.federated_distillation.presets import PRESETS
from recipes.federated_distillation.privacy import epsilon
from recipes.federated_distillation.scoring import flat, summary
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import labels_of_sites
from recipes.federated_distillation.state import CHECKPOINT, SECOND_LOOK, UPDATES, State
from recipes.federated_distillation.trainee import model_from
from recipes.refine import HEAD
from recipes.second_look import joined


def export(settings: Settings, state: State, folder: Path, step: str = "") -> Path:
    """Write ``folder/<network>.<exp_name>/`` in the form that ``cardiac-ct-fm predict --model`` takes.

    Args:
        settings: the experiment's.
        state: its breakpoint.
        folder: a folder of weights.
        step: the training step to export; the last one when empty.

    Returns:
        The folder that was written.

    Raises:
        ConfigError: the step is not one of the plan's, or not finished.
    """
    plan = make_plan(settings, labels_of_sites(settings))
    trained = {s.name: s for s in plan if s.kind == "train"}
    name = step or final_step(plan).name
    if name not in trained:
        raise ConfigError(f"There is no training step {name!r} to export; choose one of {', '.join(trained)}.")
    chosen = trained[name]
    done = state.rounds(name)
    if done < chosen.rounds:
        raise ConfigError(f"{name} has finished {done} of {chosen.rounds} rounds; run the experiment to its end first.")
    model: CardiacCTModel = model_from(chosen, state.load(name))
    facts = provenance(settings, state, plan, chosen)
    if state.has(SECOND_LOOK) and HEAD in chosen.heads and begins_at_checkpoint(settings, chosen.network):
        model = joined(model, {key: torch.from_numpy(values) for key, values in state.load(SECOND_LOOK).items()})
        facts["second_look"] = "of the weights it started from; no site trained it, and the figures are without it"
    model._set_config(model.config.replace(provenance=facts))
    tag = settings.exp_name if name == final_step(plan).name else f"{settings.exp_name}-{name}"
    return export_pretrained(
        model,
        folder,
        tag=tag,
        description=description(settings, chosen, state.read(CHECKPOINT)),
        metrics=metrics(settings, state, next(s for s in plan if s.source == name), chosen),
        dtype=torch.float32,
    )


def description(settings: Settings, step: Step, start: Mapping[str, Any] | None) -> str:
    """One sentence for people: whose data, which method, from which weights."""
    whose = (
        "100 % synthetic: trained by a federation of {} digital hospital{}"
        if settings.local
        else ("trained by a federation of {} hospital{}")
    )
    began = f"from {start['name']}" if start else "from random weights"
    many = "s" * (len(step.sites) != 1)
    return f"{whose.format(len(step.sites), many)} ({settings.method}, {step.rounds} rounds), {began}."


def provenance(settings: Settings, state: State, plan: Sequence[Step], step: Step) -> dict[str, Any]:
    """Sites, rounds, commit, hash of the data's description, privacy: what a reader needs to judge the weights."""
    counts = scans(state.folder / "history.csv", step.name)
    teachers = [s.name for s in plan if s.name.startswith("teach-")] if step.pseudo else []
    told = {"sites": counts, "seed": settings.seed, "seeds_per_site": SITE_SEEDS if settings.local else None}
    facts: dict[str, Any] = {
        "data": "digital cohort of this package" if settings.local else "scans of the sites, which never left them",
        "synthetic_share": 1.0 if settings.local else "as the sites declare",
        "recipe": "recipes.federated_distillation",
        "command": command(stored(state), "" if step.name == final_step(list(plan)).name else step.name),
        "seed": settings.seed,
        "commit": commit(),
        "start_from": state.read(CHECKPOINT) or "nothing",
        "teacher": teachers or "none",
        "method": settings.method,
        "rounds": step.rounds,
        "sites": counts,
        "data_sha256": hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(),
        "tags": list(settings.tags),
        "limitations": [
            "Trained by a federation of digital patients; real scans differ."
            if settings.local
            else "Trained at the named sites; other scanners and populations differ."
        ],
    }
    if settings.dp_noise:
        asked = state.read(UPDATES) or {}
        training = [s for s in plan if s.kind == "train"]
        planned = {site: sum(s.rounds for s in training if site in s.sites) for site in settings.locations}
        updates = max(max(asked.get(site, 0), rounds) for site, rounds in planned.items())
        spent = epsilon(settings.dp_noise, updates, settings.dp_delta)
        facts["differential_privacy"] = (
            f"ε = {spent:.1f} at δ = {settings.dp_delta:g} per site (Rényi accountant, {updates} updates, noise "
            f"multiplier {settings.dp_noise:g}, clipping norm {settings.dp_clip:g})"
        )
    return facts


def metrics(settings: Settings, state: State, test: Step, trained: Step | None) -> dict[str, dict[str, Any]]:
    """Figures of a test, pooled over sites that trained with labels of a head and over all others.

    Args:
        settings: the experiment's.
        state: its breakpoint.
        test: the test step.
        trained: the training step whose weights were tested; None for a checkpoint, of which all sites are others.
    """
    results = {site: found for site, found in (state.read(test.name) or {}).items() if site in test.sites}
    labels = labels_of_sites(settings)
    inside = trained.sites if trained else ()
    groups: dict[str, dict[str, Any]] = {}
    for head in test.heads:
        for kind in ("points", "dice"):
            for title, training in (("training sites", True), ("other sites", False)):
                members = [s for s in results if (s in inside and head in labels[s]) == training]
                values = [v for s in members for v in flat(results[s], head, kind)]
                if values:
                    unit = "mm" if kind == "points" else "Dice"
                    groups[f"{head}, {unit}, {title}"] = summary(values, kind)
    return groups


def untested(state: State, test: Step) -> list[str]:
    """Sites that were to be tested and have given no figures, because they were away or have nothing to test on."""
    results = state.read(test.name) or {}
    return [site for site in test.sites if site not in results]


def table(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The figures as lines for people; a quantile that falls on missing points is written ∞."""
    lines = []
    for title, figures in groups.items():
        quartiles = "/".join("∞" if figures[q] is None else f"{figures[q]:.2f}" for q in ("q25", "median", "q75"))
        rates = "".join(
            f"  {k.removeprefix('within_').replace('_mm', '')} mm {v:.0%}"
            for k, v in figures.items()
            if k.startswith("within")
        )
        lines.append(f"{title:32s} n={figures['n']:<4d} {quartiles}{rates}")
    return lines


def scans(history: Path, step: str) -> dict[str, dict[str, float]]:
    """Site → part → scans, as counted in the step's last round that the site took part in."""
    counts: dict[str, dict[str, float]] = {}
    with history.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["step"] == step and row["measure"] == "scans" and row["part"] != "all":
                counts.setdefault(row["site"], {})[row["part"]] = float(row["value"])
    return dict(sorted(counts.items()))


def command(settings: Settings, step: str = "") -> str:
    """The command that trains and exports with these settings, in as few words as a preset or none allows.

    It tells no folder: neither the experiments' nor the lead's kit, and of a checkpoint on a disk only its name. Where
    and how the sites are run decides no weights.

    Args:
        settings: the experiment's.
        step: the training step to export; the last one when empty.
    """
    wanted = settings.replace(ckpt=public_name(settings.ckpt), stage="test")
    found = [words for preset in ("", *PRESETS) if (words := _options(wanted, preset)) is not None]
    last = ["--step", step] if step else []
    return shlex.join(["python", "-m", "recipes.federated_distillation", "run", *min(found, key=len), *last])


def stored(state: State) -> Settings:
    """The settings that the experiment was begun with."""
    return Settings.from_dict(json.loads((state.folder / "settings.json").read_text(encoding="utf-8")))


def _options(settings: Settings, preset: str) -> list[str] | None:
    """Options that make ``settings`` of a preset, or of the defaults; None where an option cannot undo the preset."""
    given = PRESETS[preset] if preset else {}
    words = ["--preset", preset] if preset else []
    for field in dataclasses.fields(Settings):
        value, option = getattr(settings, field.name), field.name.replace("_", "-")
        if value == given.get(field.name, field.default):
            continue
        if value in ((), ""):
            return None
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


def commit() -> str:
    """The commit of this code, marked where files were changed since; ``not recorded`` outside of a git checkout."""
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    answer = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "not recorded"
