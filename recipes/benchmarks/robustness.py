"""Where does each output degrade, and does its confidence say so? The same held-out patients, one condition changed.

    python -m recipes.benchmarks.robustness --model cardiac_swin_tiny --n 4 --out docs/robustness

Noise, voxel size, contrast, a patient who lies turned, a heart that is cut off, a stent, a lead, a bicuspid valve:
every scan goes through the whole predictor, misses are counted. Finished scans stay in ``--rows``, in a folder per
weights, so an interrupted run goes on where it was, also with more patients or conditions. ``--again`` measures nothing
and draws OUT's own figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm import __version__
from cardiac_ct_fm.errors import ImageError, UsageError
from cardiac_ct_fm.files import atomic_write, write_json
from cardiac_ct_fm.inference import Predictor, Quality
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.process import keep_freed_memory
from cardiac_ct_fm.training.case_scores import Row, read_rows, score_case, write_rows
from cardiac_ct_fm.training.digital import held_out_seeds
from cardiac_ct_fm.training.scans import LabelledScan
from cardiac_ct_fm.training.summary import GROUPS, WRONG_MM
from recipes.benchmarks.heldout import load
from recipes.benchmarks.planning import weights_id
from recipes.benchmarks.robustness_cases import (
    CENTRE_RAS,
    CONDITIONS,
    EXTENT_MM,
    SPACING_MM,
    STRENGTH,
    UNCHANGED,
    Setting,
    scan,
    settings,
)
from recipes.benchmarks.robustness_numbers import STRUCTURES, SUREST, flat, summarised
from recipes.benchmarks.robustness_plots import draw_calibration, draw_robustness

HEADS = ("heart", "hps", "ms", "calc")
"""What is measured; other heads of a model cost time and are left out."""


AUROC = (
    "AUROC: the chance that a point that is wrong or missed is less sure than a right one; `evaluate` leaves missed "
    "ones out, and its figure is never higher."
)


def measure(
    predictor: Predictor,
    chosen: Sequence[Setting],
    patients: int,
    rows: Path,
    *,
    strength: float = STRENGTH,
    spacing_mm: float = SPACING_MM,
    quality: Quality = "standard",
    cache: Path | None = None,
) -> dict[Setting, list[Row]]:
    """Scores of all patients under all settings, patient by patient; those that lie in ``rows`` already are read.

    Args:
        predictor: the model.
        chosen: settings.
        patients: the first held-out patients of no site.
        rows: folder of finished scans; gets one folder per weights and kind of scans in it.
        strength: dial of the domain randomisation.
        spacing_mm: voxel size where it is not what changes.
        quality: as in prediction.
        cache: folder that keeps rendered scans.

    Raises:
        UsageError: finished scans were seen in other looks.
    """
    model = predictor.model
    kind = f"{model.config.name}-{weights_id(model)}-{quality}-strength-{strength:g}-{spacing_mm:g}mm"
    check_looks(rows / kind / "config.json", model)
    scores: dict[Setting, list[Row]] = {setting: [] for setting in chosen}
    for number, seed in enumerate(held_out_seeds()[:patients], start=1):
        for setting in chosen:
            file = rows / kind / setting.name / f"digital-{seed}.csv"
            if not file.exists():
                labelled = scan(seed, setting, strength, spacing_mm, cache)
                write_rows(file, scored(predictor, labelled, quality))
                print(f"patient {number}/{patients}: {setting.name}", file=sys.stderr, flush=True)
            scores[setting] += read_rows(file)
    return scores


def check_looks(file: Path, model: CardiacCTModel) -> None:
    """Note beside finished scans how the weights are used, looks and intensities, which their own name does not tell.

    Raises:
        UsageError: it says something else.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in ("name", "provenance")}
    now = json.loads(json.dumps(config))
    if not file.exists():
        write_json(file, now)
    elif (then := json.loads(file.read_text(encoding="utf-8"))) != now:
        changed = ", ".join(key for key in now if then.get(key) != now[key])
        raise UsageError(
            f"The scans in {file.parent} were seen with the same weights and other {changed}; remove the folder, or "
            "give another one with --rows."
        )


def scored(predictor: Predictor, labelled: LabelledScan, quality: Quality) -> list[Row]:
    """Scores of one scan; everything is missed where the predictor sees no heart."""
    heads = [name for name in HEADS if name in predictor.model.heads]
    try:
        prediction = predictor(labelled.volume, heads=heads, quality=quality, measure=False)
    except ImageError as error:
        print(error, file=sys.stderr, flush=True)
        prediction = None
    return score_case(labelled, prediction, heads)


def write(result: dict[str, Any], out: Path) -> None:
    """The tables, the pictures and all figures; each file whole or not at all.

    Args:
        result: about the run, ``settings``, ``calibration``, …, and ``rows``.
        out: the folder.
    """
    head = {key: value for key, value in result.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in result["rows"])
    text = json.dumps(head, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(out / "robustness.json") as temporary:
        temporary.write_text(f'{text[:-2]},\n "rows": [\n{rows}\n]}}\n', encoding="utf-8")
    with atomic_write(out / "robustness.md") as temporary:
        temporary.write_text("\n".join(markdown(result)) + "\n", encoding="utf-8")
    draw_robustness(result, out / "robustness.png")
    draw_calibration(result, out / "calibration.png")


def markdown(result: dict[str, Any]) -> list[str]:
    """All figures as tables for people."""
    about = result["about"]
    lines = [
        f"`{about['model']}` (weights {about['weights']}), {about['patients']} held-out digital patients at strength "
        f"{about['strength']:g}, `{about['quality']}`. A point that was not found is infinitely far.",
        "",
        *_points_table(result["settings"], result["rows"]),
        "",
        "Median Dice on the grid of the scan; a structure that was not found counts as 0.",
        "",
        "| condition | " + " | ".join(STRUCTURES) + " |",
        "|---" * (len(STRUCTURES) + 1) + "|",
    ]
    lines += [
        f"| {title(f)} | " + " | ".join(_cell(f["dice"][s]) for s in STRUCTURES) + " |" for f in result["settings"]
    ]
    lines += ["", "Points that were given, by confidence, over all conditions.", ""]
    lines += ["| confidence | points | mean confidence | within 4 mm |", "|---|---|---|---|"]
    lines += [
        f"| {b['from']:g}–{b['to']:g} | {b['points']} | {b['confidence']:.2f} | {_percent(b['within'])} |"
        for b in result["calibration"]["all points"]
    ]
    lines += ["", f"All points that were asked against the surest {_percent(SUREST)}, over all conditions. {AUROC}", ""]
    lines += [
        "| points | asked | median, all | surest | within 4 mm, all | surest | AUROC |",
        "|---|---|---|---|---|---|---|",
    ]
    for group, s in result["selective"].items():
        every, kept = s["all"], s["kept"]
        cells = [_mm(every["median_mm"], s["points"]), _mm(kept["median_mm"], s["points"])]
        cells += [_percent(every["within"]), _percent(kept["within"]), _cell(result["auroc"][group])]
        lines.append(f"| {group} | {s['points']} | " + " | ".join(cells) + " |")
    lines += ["", "Spearman's correlation over conditions; −1: mean confidence falls wherever errors rise.", ""]
    lines += ["| points | conditions | with the median error | with the share beyond 4 mm |", "|---|---|---|---|"]
    lines += [
        f"| {group} | {s['settings']} | {_cell(s['median_error'])} | {_cell(s['failures'])} |"
        for group, s in result["spearman"].items()
    ]
    return lines


def _points_table(figures: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Points by condition; a group that the model does not give has a dash and is counted nowhere."""
    scores = [(row["setting"], row["structure"], row["status"]) for row in rows if row["measure"] == "error_mm"]
    given = {group for group, names in GROUPS.items() if {structure for _, structure, _ in scores} & {*names}}
    hidden_in = Counter(name for name, _, status in scores if status not in ("ok", "missed"))
    groups = " | ".join(f"{group}: median, within {WRONG_MM:g} mm, confidence" for group in GROUPS)
    lines = [f"| condition | {groups} | plane | missed | not shown, invented |", "|---" * (len(GROUPS) + 4) + "|"]
    for f in figures:
        points = [f["points"][group] for group in GROUPS]
        cells = [
            f"{_mm(p['median_mm'], p['asked'])}, {_percent(p['within'])}, {_cell(p['confidence'])}"
            if p["asked"]
            else ("not shown" if group in given else "–")
            for group, p in zip(GROUPS, points, strict=True)
        ]
        angle = f["plane_angle_deg"]
        cells.append("–" if angle is None else f"{angle:.1f}°")
        asked, found = sum(p["asked"] for p in points), sum(p["found"] for p in points)
        cells.append(f"{asked - found} of {asked}")
        hidden = hidden_in[f["name"]]
        cells.append(f"{hidden}, {sum(p['invented'] for p in points)}" if hidden else "")
        lines.append(f"| {title(f)} | " + " | ".join(cells) + " |")
    return lines


def title(figures: dict[str, Any]) -> str:
    """A setting for people: ``Noise, 2 times the scan's own``."""
    if figures["condition"] == UNCHANGED.condition:
        return "Unchanged"
    condition = CONDITIONS[figures["condition"]]
    return f"{condition.title}, {figures['level']:g} {condition.axis}" if condition.axis else condition.title


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _mm(value: float | None, asked: int) -> str:
    return f"{value:.1f} mm" if value is not None else "missed" if asked else "–"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, summarise, write; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cardiac_swin_tiny", help="as for recipes.benchmarks.heldout")
    parser.add_argument("--n", type=int, default=4, help="held-out patients of no site, from seed 0 on")
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS))
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and pictures")
    parser.add_argument("--rows", type=Path, default=Path("out/robustness"), help="folder that keeps finished scans")
    parser.add_argument("--cache", type=Path, help="folder that keeps rendered scans")
    parser.add_argument("--strength", type=float, default=STRENGTH, help="dial of the domain randomisation")
    parser.add_argument("--spacing", type=float, default=SPACING_MM, help="mm, where it is not what changes")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="tables and pictures of OUT's own figures")
    args = parser.parse_args(arguments)
    if args.again:
        write(json.loads((args.out / "robustness.json").read_text(encoding="utf-8")), args.out)
        return
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    predictor = Predictor(load(args.model), device="cpu")
    scores = measure(
        predictor,
        settings(args.conditions),
        args.n,
        args.rows,
        strength=args.strength,
        spacing_mm=args.spacing,
        quality=args.quality,
        cache=args.cache,
    )
    about = {
        "cardiac_ct_fm": __version__,
        "model": predictor.model.config.name,
        "weights": weights_id(predictor.model),
        "looks": predictor.model.config.to_dict()["looks"],
        "patients": args.n,
        "strength": args.strength,
        "quality": args.quality,
        "spacing_mm": args.spacing,
        "centre_ras": CENTRE_RAS,
        "extent_mm": EXTENT_MM,
        "within_mm": WRONG_MM,
    }
    result = {"about": about, **summarised(scores), "rows": flat(scores)}
    write(result, args.out)
    print("\n".join(markdown(result)))


if __name__ == "__main__":
    main()
