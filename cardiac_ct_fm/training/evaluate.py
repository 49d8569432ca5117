"""``evaluate``: a model on scans with references, measured as the field measures, resumable, compared with another.

Every scan goes through the whole :class:`~cardiac_ct_fm.inference.Predictor`, as a user's scan does. Scores of a scan
are written as soon as they are known, so a stopped run goes on where it was, also with more scans. A folder holds
scores of one model on one kind of data; a scan whose files have changed is scored anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardiac_ct_fm import __version__
from cardiac_ct_fm.errors import ImageError, UsageError
from cardiac_ct_fm.files import check_folder, write_json
from cardiac_ct_fm.inference import Predictor, Quality
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.training.case_scores import Row, predictable, read_rows, score_case, write_rows
from cardiac_ct_fm.training.comparison import compare
from cardiac_ct_fm.training.curves import draw_boxes
from cardiac_ct_fm.training.scans import ScanSource
from cardiac_ct_fm.training.summary import summarise

Progress = Callable[[str, int, int], None]
"""Called with (scan, scans done, scans in all)."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        rows: every score of every scan.
        summary: pooled figures, plain JSON types.
        folder: where they were written, or None.
    """

    rows: list[Row]
    summary: dict[str, Any]
    folder: Path | None = None


def evaluate(
    model: str | Path | CardiacCTModel | Predictor,
    data: ScanSource,
    out: str | Path | None = None,
    *,
    heads: Sequence[str] | None = None,
    quality: Quality = "standard",
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Predict and score all scans.

    A scan that the predictor refuses (no heart found) counts as missed in everything that was asked of it.

    Args:
        model: a name, a folder, a Hub repository, a loaded model, or a predictor (then ``device`` is its own).
        data: the scans.
        out: folder for ``scores.csv``, ``summary.json``, ``boxes.png`` and ``cases/``; a stopped run in it goes on.
        heads: heads to measure; all of the model's that have a reference when None.
        quality: as in prediction.
        device: as in prediction.
        progress: called after every scan.

    Raises:
        UsageError: no scans, an unknown head, or ``out`` holds an evaluation of another model or on other data.
        DataError: a reference does not fit its scan or the model's classes.
        OutputError: the folder cannot be written; noticed before the model is loaded.
    """
    if out is not None:
        check_folder(out)
    if not data.keys:
        raise UsageError(f"{data.name} holds no scans to evaluate on; name at least one.")
    predictor = model if isinstance(model, Predictor) else Predictor(model, device)
    chosen = list(heads) if heads is not None else [h.name for h in predictor.model.config.heads]
    for head in chosen:
        predictor.model.config.head(head)
    run = _run(predictor.model, data, chosen, quality)
    folder = None if out is None else _opened(Path(out), run, data.stamps)
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for number, key in enumerate(data.keys, start=1):
        own, why = _case(predictor, data, key, chosen, quality, folder)
        rows += own
        if why is not None:
            failed[key] = why
        if progress is not None:
            progress(key, number, len(data.keys))
    summary = {**run, **summarise(rows, failed)}
    if folder is not None:
        write_rows(folder / "scores.csv", rows)
        draw_boxes(folder / "boxes.png", {predictor.model.config.name: rows})
        write_json(folder / "summary.json", summary)
    return Evaluation(rows, summary, folder)


def heads_of_both(network: CardiacCTModel, rival: CardiacCTModel, names: list[str] | None) -> list[str]:
    """The heads that are compared; checked before either model computes anything.

    Raises:
        ConfigError: one that was asked for is missing in a model.
        UsageError: the models have no head in common.
    """
    if names is not None:
        for model in (network, rival):
            for name in names:
                model.config.head(name)
        return names
    common = [name for name in network.heads if name in rival.heads]
    if not common:
        raise UsageError(
            f"{network.config.name} and {rival.config.name} have no head in common ({', '.join(network.heads)} and "
            f"{', '.join(rival.heads)}); compare models with the same heads."
        )
    return common


def write_comparison(
    out: str | Path, evaluations: tuple[Evaluation, Evaluation], names: tuple[str, str]
) -> dict[str, Any]:
    """Compare two models on the same scans; writes ``comparison.json`` and both models' box plots.

    Args:
        out: an existing folder.
        evaluations: of the two models.
        names: of the models.

    Returns:
        See :func:`~cardiac_ct_fm.training.comparison.compare`.

    Raises:
        DataError: they share no scored patient.
        OutputError: the folder cannot be written.
    """
    first, second = evaluations
    result = compare(first.rows, second.rows, names)
    draw_boxes(Path(out) / "boxes.png", dict(zip(result["models"], (first.rows, second.rows), strict=True)))
    write_json(Path(out) / "comparison.json", result)
    return result


def _case(
    predictor: Predictor, data: ScanSource, key: str, heads: Sequence[str], quality: Quality, folder: Path | None
) -> tuple[list[Row], str | None]:
    """Scores of one scan, and why there was no prediction; read back where they are there already."""
    scores = None if folder is None else folder / "cases" / f"{key}.csv"
    reason = None if folder is None else folder / "cases" / f"{key}.failed.json"
    if scores is not None and reason is not None and scores.exists():
        why = json.loads(reason.read_text(encoding="utf-8"))["reason"] if reason.exists() else None
        return read_rows(scores), why
    scan = data.load(key)
    wanted = predictable(heads, scan)
    why = None
    try:
        prediction = predictor(scan.volume, heads=wanted, quality=quality, measure=False) if wanted else None
    except ImageError as error:
        prediction, why = None, str(error)
    rows = score_case(scan, prediction, heads)
    if scores is not None and reason is not None:
        if why is not None:
            write_json(reason, {"reason": why})
        write_rows(scores, rows)
    return rows, why


def weights_sha256(model: CardiacCTModel) -> str:
    """Identity of the weights that an evaluation was made with: all tensors with their names, as float32."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return weights.hexdigest()


def _run(model: CardiacCTModel, data: ScanSource, heads: Iterable[str], quality: Quality) -> dict[str, Any]:
    """What identifies an evaluation: two with the same content give the same figures."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("name", "provenance")}
    run = {
        "cardiac_ct_fm": __version__,
        "model": model.config.name,
        "weights_sha256": weights_sha256(model),
        "config": config,
        "provenance": model.config.provenance,
        "heads": list(heads),
        "quality": quality,
        "data": {"name": data.name, **data.facts},
    }
    plain: dict[str, Any] = json.loads(json.dumps(run))
    return plain


def _opened(folder: Path, run: dict[str, Any], stamps: Mapping[str, str]) -> Path:
    """The folder of this evaluation, made or found again, without scores of scans that have changed since.

    Raises:
        UsageError: it holds an evaluation of another model or on other data.
    """
    note = folder / "evaluation.json"
    seen: dict[str, str] = {}
    if note.exists():
        before = json.loads(note.read_text(encoding="utf-8"))
        seen = before.get("stamps", {})
        other = [key for key in run if key != "data" and before.get(key) != run[key]]
        other += [f"data.{fact}" for fact in _other_facts(before["data"], run["data"])]
        if other:
            raise UsageError(
                f"{folder} holds an evaluation with another {' and '.join(other)}; choose another folder or remove it."
            )
    for key, stamp in stamps.items():
        if seen.get(key) != stamp:
            for ending in (".csv", ".failed.json"):
                (folder / "cases" / f"{key}{ending}").unlink(missing_ok=True)
    write_json(note, {**run, "stamps": {**seen, **stamps}})
    return folder


def _other_facts(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Facts that differ; one that is a table by scan differs where a scan of both does: scans may be added."""

    def differ(old: Any, new: Any) -> bool:
        if isinstance(old, dict) and isinstance(new, dict):
            return any(old[key] != new[key] for key in old.keys() & new.keys())
        return bool(old != new)

    return [fact for fact in sorted(before.keys() | now.keys()) if differ(before.get(fact), now.get(fact))]
