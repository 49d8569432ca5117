"""``finetune``: put a new head on a trained model with a few dozen labelled scans, on one machine.

The result is a head file of some KB (MB with a decoder of its own) that ``from_pretrained(trunk, heads=[…, file])``
puts on the same trunk, and a folder with the history, its curve, a montage and what was done.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm import __version__
from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.errors import CardiacCTError, DataError, UsageError
from cardiac_ct_fm.files import atomic_write, check_folder, write_json
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.runtime import choose_device
from cardiac_ct_fm.training.curves import draw_history, draw_montage
from cardiac_ct_fm.training.data_list import DataList, read_data_list, split_by_patient
from cardiac_ct_fm.training.denormals import denormals_as_zero
from cardiac_ct_fm.training.loop import Loop, Progress, Windows
from cardiac_ct_fm.training.scans import ScanSource, list_source
from cardiac_ct_fm.training.settings import FinetuneSettings
from cardiac_ct_fm.training.trainee import Trainee, trainee
from cardiac_ct_fm.training.training_state import CACHE_FOLDER, Standing, holds_state, tidy, withdraw

REPORT = "finetune.json"
"""Written last: a folder that holds it is complete."""

MONTAGE_WINDOWS = 6

Data = str | Path | DataList | dict[str, ScanSource]
"""A data list, its path, or ``{"training": …, "validation": …}`` of scans that are made otherwise."""


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning gives.

    Attributes:
        model: a copy of the given model with the new head on it, in evaluation mode.
        head: name of the head.
        path: the head file, or with ``train="all"`` the model folder; None when no folder was given.
        best_dice: best validation Dice, None without validation scans.
        standing: epochs done, seconds, history, and a warning where the head found nothing.
    """

    model: CardiacCTModel
    head: str
    path: Path | None
    best_dice: float | None
    standing: Standing


def finetune(
    model: str | Path | CardiacCTModel,
    data: Data,
    head: str,
    *,
    classes: Sequence[str] | None = None,
    kind: str | None = None,
    out: str | Path | None = None,
    settings: FinetuneSettings | None = None,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Train a new head.

    Args:
        model: a name, a folder, a Hub repository or a loaded model, which is left as it is.
        data: labelled scans; see :mod:`cardiac_ct_fm.training.data_list`.
        head: name of the new head; a name of the vocabulary (``coronaries``) brings its kind and classes.
        classes: class names without background; None takes the vocabulary's or the data list's.
        kind: ``segmentation`` or ``landmarks``; None takes the vocabulary's, else ``segmentation``.
        out: folder of the results; a run that was interrupted in it goes on. None keeps nothing on disk.
        settings: see :class:`FinetuneSettings`.
        progress: told after every step, with the time left.

    Raises:
        UsageError: the head exists, its name or classes do not do, or ``out`` holds another training, or one on files
            that have changed since.
        DataError: a scan without label, a label that does not fit its image or the classes, a patient in training
            and validation.
        WeightsError: the model cannot be loaded.
        OutputError: a file cannot be written; an older result stays. A folder that refuses is noticed beforehand.
    """
    folder = None if out is None else Path(out)
    complete = folder is not None and (folder / REPORT).exists()
    if folder is not None and not complete:
        check_folder(folder)
    settings = settings or FinetuneSettings()
    listed = read_data_list(data) if isinstance(data, str | Path) else data
    base = model if isinstance(model, CardiacCTModel) else CardiacCTModel.from_pretrained(model)
    config = head_config(base, head, classes, kind, listed, settings)
    sources = _sources(listed, config, settings)
    network = _with_head(base, config, settings)
    about = _about(base, config, sources, settings)
    stamps = [dict(source.stamps) for source in sources.values()]
    fingerprint = hashlib.sha256(json.dumps([about, stamps], sort_keys=True).encode()).hexdigest()
    if folder is not None and complete:
        return _finished(folder, about, fingerprint, base, head, settings)
    learner = trainee(settings.train, network, head)
    # Nothing is made beside the folder that was given: a run that is killed would leave it.
    scratch = tempfile.TemporaryDirectory(prefix="cardiac-ct-fm-") if folder is None else nullcontext(str(folder))
    with scratch as place:
        looks = tuple(network.config.look(name) for name in settings.looks_for(head))
        windows = Windows(sources, config, looks, learner, settings, Path(place) / CACHE_FOLDER / fingerprint[:16])
        loop = Loop(learner, windows, settings, folder, fingerprint, progress)
        begun = folder is not None and holds_state(folder)  # this training's or another's: not to be lost
        try:
            with denormals_as_zero():
                standing = loop.run()
        except CardiacCTError:
            if folder is not None and not begun and loop.standing.epoch == 0:
                withdraw(folder)
            raise
        network.requires_grad_(True)
        path = None
        if folder is not None:
            path = _write(folder, learner, windows, standing, about, fingerprint, settings)
    return FinetuneResult(network, head, path, standing.best, standing)


def head_config(
    model: CardiacCTModel,
    head: str,
    classes: Sequence[str] | None,
    kind: str | None,
    data: DataList | dict[str, ScanSource],
    settings: FinetuneSettings,
) -> HeadConfig:
    """The new head as it is asked for.

    Raises:
        UsageError: the model has such a head, the model cannot be fine-tuned, or nobody names the classes.
        ConfigError: name, kind or classes do not do, or the model has no such look.
    """
    if head in model.heads:
        raise UsageError(f"{model.config.name} has a head {head!r} already; choose another name.")
    if model.config.condition_on_seg:
        raise UsageError(
            f"{model.config.name} is conditioned on a heart segmentation; fine-tune a model that sees the image alone."
        )
    for name in settings.looks_for(head):
        model.config.look("root" if name == "detail" else name)
    step = model.config.backbone.divisor
    if settings.patch % step:
        nearest = max(1, round(settings.patch / step)) * step
        raise UsageError(
            f"patch is {settings.patch} voxels; this trunk needs a multiple of {step}, for example {nearest}."
        )
    spec = HEADS.get(head)
    named = tuple(classes) if classes else spec.classes if spec else None
    if named is None and isinstance(data, DataList):
        named = data.classes_of(head)
    if named is None:
        raise UsageError(
            f"Nobody names the classes of head {head!r}; give them without the background, --classes "
            "Calcified,Soft (in Python classes=[…]), or as labels of the data list."
        )
    chosen = kind or (spec.kind if spec else "segmentation")
    own, hidden = settings.train == "decoder", settings.hidden_for(head)
    return HeadConfig(head, chosen, named, own, hidden)  # type: ignore[arg-type]


def _sources(
    data: DataList | dict[str, ScanSource], head: HeadConfig, settings: FinetuneSettings
) -> dict[str, ScanSource]:
    """Training and validation scans."""
    if not isinstance(data, DataList):
        if "training" not in data or not data["training"].keys:
            raise DataError("There are no training scans; give at least one.")
        return {part: data[part] for part in ("training", "validation") if part in data and data[part].keys}
    training, validation = data.training, data.validation
    if not training:
        raise DataError(f"{data.name} has no training scans; list at least one under training.")
    if not validation and settings.validation > 0 and len({e.patient for e in training}) > 1:
        labelled = [e for e in training if e.label_of(head.name, points=head.kind == "landmarks")]
        if len({e.patient for e in labelled}) > 1:
            training, validation = split_by_patient(labelled, settings.validation, settings.seed)
    sources = {"training": list_source(training, [head], f"{data.name}, training")}
    if validation:
        sources["validation"] = list_source(validation, [head], f"{data.name}, validation")
    return sources


def _with_head(base: CardiacCTModel, head: HeadConfig, settings: FinetuneSettings) -> CardiacCTModel:
    """A copy of the model with the new head, random but the same for one seed."""
    model = copy.deepcopy(base).to(choose_device(settings.device)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        looks = settings.looks_for(head.name)
        model.add_head(
            head.name, head.classes, head.kind, own_decoder=head.own_decoder, hidden=head.hidden, looks=looks
        )
    return model


def _about(
    base: CardiacCTModel, head: HeadConfig, sources: dict[str, ScanSource], settings: FinetuneSettings
) -> dict[str, Any]:
    """What a training is: two with the same content end in the same weights."""
    plain = dataclasses.asdict(settings)
    device = plain.pop("device")
    del plain["cache_gb"]
    looks, thin = settings.looks_for(head.name), settings.thin_head(head.name)
    chosen = {"lr": settings.learning_rate(head.name), "looks": looks, "thin": thin, "hidden": head.hidden}
    about = {
        "cardiac_ct_fm": __version__,
        "model": base.config.name,
        "trunk_sha256": base.trunk_sha256(),
        "head": dataclasses.asdict(head),
        "settings": {**plain, **chosen, "device": str(choose_device(device).type)},
        "data": {part: {"name": s.name, "scans": list(s.keys), **s.facts} for part, s in sources.items()},
    }
    plain_json: dict[str, Any] = json.loads(json.dumps(about))
    return plain_json


def _finished(
    folder: Path, about: dict[str, Any], fingerprint: str, base: CardiacCTModel, head: str, settings: FinetuneSettings
) -> FinetuneResult:
    """The result that is there already.

    Raises:
        UsageError: it is another training's, or its scans or labels have changed since.
    """
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if any(report.get(key) != value for key, value in about.items()):
        raise UsageError(
            f"{folder} holds the result of another training ({report['head']['name']} on {report['model']}); choose "
            "another folder or remove it."
        )
    if report.get("fingerprint") != fingerprint:
        raise UsageError(
            f"{folder} holds the result of a training on other files: a scan or a label was changed or moved since, "
            "or another version of this package wrote it. Choose another folder, or remove it to train anew."
        )
    path = folder / str(report["result"])
    tidy(folder, path)
    if settings.train == "all":
        model = CardiacCTModel.from_pretrained(path)
    else:
        model = copy.deepcopy(base)
        model.load_head(path)
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        history = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    best = report["best_val_dice"]
    standing = Standing(report["epochs"], 0, best, report["best_epoch"], report["seconds"], history)
    return FinetuneResult(model.to(choose_device(settings.device)).eval(), head, path, best, standing)


def _write(
    folder: Path,
    learner: Trainee,
    windows: Windows,
    standing: Standing,
    about: dict[str, Any],
    fingerprint: str,
    settings: FinetuneSettings,
) -> Path:
    """All results; the report last, then what was only needed to go on is removed."""
    model, head = learner.model, learner.head
    provenance = {"finetuned": {**about, "best_val_dice": standing.best, "epochs": standing.epoch}}
    model._set_config(model.config.replace(provenance={**model.config.provenance, **provenance}))
    if settings.train == "all":
        path = folder / "model"
        model.save_pretrained(path)
    else:
        path = model.save_head(head, folder / f"{head}.safetensors")
    with atomic_write(folder / "history.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["epoch", "seconds", "lr", "train_loss", "val_loss", "val_dice"])
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in standing.history)
    draw_history(folder / "history.png", standing.history, head)
    draw_montage(folder / "montage.png", learner, windows, MONTAGE_WINDOWS)
    figures = {"epochs": standing.epoch, "best_epoch": standing.best_epoch, "best_val_dice": standing.best}
    ending = {"seconds": round(standing.seconds, 1), "warning": standing.warning, "result": path.name}
    write_json(folder / REPORT, {**about, "fingerprint": fingerprint, **figures, **ending})
    tidy(folder, path)
    return path


def seconds_left(value: float | None) -> str:
    """Time left for people: ``4 min``, ``35 s``; empty when unknown."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{math.ceil(value / 60)} min" if value >= 90 else f"{math.ceil(value)} s"
