"""How right are the measurements of the aortic root? On digital patients, whose truth is known, and on the real scan.

    python -m recipes.benchmarks.planning --n 100 --predicted 25 --out docs/planning

With true landmarks the geometry and the image are tested; with predicted ones everything. A value that the scan shows
and that was not made counts as an infinite error, so it moves medians and quartiles. ``--rows`` keeps finished
patients in a file named by what made them (sources and weights), so an interrupted run goes on and never mixes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardiac_ct_fm import __version__
from cardiac_ct_fm.inference import Predictor
from recipes.benchmarks.planning_cases import Row, with_predicted_landmarks, with_true_landmarks
from recipes.benchmarks.planning_doubt import LEAST_CALCIUM_MM3, asked, coverage, off, per_cusp, percent, read
from recipes.benchmarks.planning_plots import bland_altman

BY_CONSTRUCTION = ("lca_height_mm", "rca_height_mm", "membranous_septum_length_mm", "carm_")
"""What rests on the points alone: with true points it is right by construction, which passes no test."""

CASES = ("recipes/benchmarks/planning_cases.py", "recipes/benchmarks/root_truth.py")
PATIENTS = ("cardiac_ct_fm/assets/cohort/*.npz",)
MEASURING = ("planning/**/*.py", "cohort/**/*.py", "anatomy.py", "geometry.py", "landmark_io.py", "result.py")
SOURCES: dict[str, tuple[str, ...]] = {
    "true": (*(f"cardiac_ct_fm/{path}" for path in (*MEASURING, "volume_io.py")), *PATIENTS, *CASES),
    "predicted": ("cardiac_ct_fm/**/*.py", *PATIENTS, *CASES),
}
"""The files, below the repository, that rows of either kind of landmarks depend on. What only writes files or words an
error changes no number."""

REPOSITORY = Path(__file__).resolve().parents[2]


HUMAN_AREA, HUMAN_DIAMETER = "diameter 0.4 ± 0.9 mm", "diameter 0.2 (−1.4…+1.8) mm"
QUANTITIES: tuple[tuple[str, tuple[str, ...], str, float | None, str], ...] = (
    ("Annulus area", ("annulus_area_mm2",), "%", 5.0, HUMAN_AREA),
    ("Annulus perimeter", ("annulus_perimeter_mm",), "%", None, ""),
    ("Annulus minimum diameter", ("annulus_min_diameter_mm",), "mm", None, HUMAN_DIAMETER),
    ("Annulus maximum diameter", ("annulus_max_diameter_mm",), "mm", None, HUMAN_DIAMETER),
    ("Height of the left ostium", ("lca_height_mm",), "mm", 0.7, "ICC 0.78"),
    ("Height of the right ostium", ("rca_height_mm",), "mm", 0.7, "ICC 0.61"),
    ("Height of the junction", ("stj_height_mm",), "mm", 0.7, ""),
    ("Membranous septum", ("membranous_septum_length_mm",), "mm", 0.7, ""),
    ("Junction, mean diameter", ("stj_mean_diameter_mm",), "mm", 1.0, "ICC 0.95"),
    ("Sinuses, mean diameter", ("sinus_mean_diameter_mm",), "mm", 1.0, "ICC 0.99"),
    ("Sinus to commissure (3)", tuple(f"sinus_{c}_diameter_mm" for c in ("rcc", "lcc", "ncc")), "mm", 1.0, ""),
    ("Sinuses, maximum diameter", ("sinus_max_diameter_mm",), "mm", 1.0, ""),
    ("Sinuses, minimum diameter", ("sinus_min_diameter_mm",), "mm", 1.0, ""),
    ("Outflow tract area", ("lvot_area_mm2",), "%", None, ""),
    ("Outflow tract area, smooth tube", ("lvot_area_mm2 smooth",), "%", None, ""),
    ("C-arm, three-cusp (2 angles)", ("carm_three_cusp_lao_deg", "carm_three_cusp_cran_deg"), "°", 2.0, ""),
    ("C-arm, cusp overlap (2 angles)", ("carm_cusp_overlap_lao_deg", "carm_cusp_overlap_cran_deg"), "°", 2.0, ""),
    ("Calcium per cusp, label map", per_cusp(""), "%", 10.0, ""),
    ("Calcium per cusp, from 850 HU", per_cusp(" fixed"), "%", 10.0, ""),
    ("Calcium per cusp, blood + 100 HU", per_cusp(" lumen"), "%", 10.0, ""),
    ("Voxels per cusp, from 850 HU", per_cusp(" fixed counted"), "%", None, ""),
    ("Voxels per cusp, blood + 100 HU", per_cusp(" lumen counted"), "%", None, ""),
)
"""Title, names, unit of the error, the issue's limit for the median, and what two people differ by."""


def errors(rows: list[Row], names: tuple[str, ...], unit: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N,) signed errors of what could be asked; a missing value is NaN."""
    return np.array([100.0 * off(row) / row["truth"] if unit == "%" else off(row) for row in asked(rows, names)])


def false_calcium(rows: list[Row], names: tuple[str, ...]) -> dict[str, Any] | None:
    """Cusps with less than 10 mm³: how many there are, how many got 10 mm³ too much or more, and the largest excess."""
    own = [r for r in rows if r["name"] in names and r["name"].startswith("calcium") and r["asked"]]
    excess = [r["value"] - r["truth"] for r in own if r["truth"] < LEAST_CALCIUM_MM3 and r["value"] is not None]
    if not excess:
        return None
    wrong = sum(e >= LEAST_CALCIUM_MM3 for e in excess)
    return {"cusps": len(excess), "false": wrong, "largest_mm3": round(max(excess), 1)}


def summary(rows: list[Row], kind: str) -> list[dict[str, Any]]:
    """One entry per quantity; a missing value is an infinite error. ``kind``: ``true`` or ``predicted`` landmarks."""
    table = []
    for title, names, unit, limit, human in QUANTITIES:
        signed = errors(rows, names, unit)
        if not len(signed):
            continue
        made = signed[np.isfinite(signed)]
        size = np.where(np.isfinite(signed), np.abs(signed), np.inf)
        low, middle, high = (float(np.quantile(size, q, method="higher")) for q in (0.25, 0.5, 0.75))
        given = kind == "true" and names[0].startswith(BY_CONSTRUCTION)
        entry = {
            "quantity": title,
            "unit": unit,
            "asked": len(signed),
            "missed": int(np.isnan(signed).sum()),
            "median": _known(middle),
            "q25": _known(low),
            "q75": _known(high),
            "made": len(made),
            "bias": float(made.mean()) if len(made) else None,
            "lower": float(made.mean() - 1.96 * made.std()) if len(made) else None,
            "upper": float(made.mean() + 1.96 * made.std()) if len(made) else None,
            "within_1_and_1.96_sd": coverage(rows, names),
            "limit": limit,
            "human": human,
            "by_construction": given,
            "calcium_where_none": false_calcium(rows, names),
            "met": None if limit is None or given else bool(middle <= limit),
        }
        table.append(entry)
    return table


def _known(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def markdown(table: list[dict[str, Any]]) -> list[str]:
    """The summary for people."""
    out = [
        "| Quantity | asked | missed | median error [quartiles] | bias, limits of agreement of those made "
        "| truth within 1 and 1.96 SD | calcium where there is none | wanted | people |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for e in table:
        unit = "" if e["unit"] == "°" else " "
        spread = f"{_cell(e['median'])}{unit}{e['unit']} [{_cell(e['q25'])}–{_cell(e['q75'])}]"
        agreement = "–" if e["bias"] is None else f"{e['bias']:+.1f} ({e['lower']:+.1f} … {e['upper']:+.1f})"
        wanted = "" if e["limit"] is None else f"≤ {e['limit']:g} {'✓' if e['met'] else '✗'}"
        if e["by_construction"]:
            wanted = "by construction"
        none = e["calcium_where_none"]
        false = "" if none is None else f"{none['false']} of {none['cusps']}, up to {none['largest_mm3']:.0f} mm³"
        # Where the points make a value right, its truth lies within any standard deviation.
        held = "" if e["by_construction"] else percent(e["within_1_and_1.96_sd"])
        cells = (e["quantity"], e["asked"], e["missed"], spread, agreement, held, false, wanted, e["human"])
        out.append("| " + " | ".join(map(str, cells)) + " |")
    return out


def _cell(value: float | None) -> str:
    return "missed" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def collect(seeds: range, file: Path, one: Callable[[int], list[Row]]) -> list[Row]:
    """Rows of all patients; finished ones are read from a file of one patient per line, new ones are added to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = finished(file)
    for seed in seeds:
        if seed not in done:
            done[seed] = one(seed)
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(done[seed]) + "\n")
            print(f"patient {seed}", flush=True)
    return [row for seed in seeds for row in done[seed]]


def finished(file: Path) -> dict[int, list[Row]]:
    """Seed → rows of a file of one patient per line; a last line without its end was interrupted and is cut off."""
    if not file.exists():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with file.open("r+b") as stream:
            stream.truncate(len(whole))
    patients = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
    return {rows[0]["seed"]: rows for rows in patients}


def sources_id(kind: str, root: Path = REPOSITORY) -> str:
    """Version of the package and a hash of the files below ``root`` that rows of a kind of landmarks depend on."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in SOURCES[kind] for p in root.glob(pattern)):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"{__version__}-{digest.hexdigest()[:12]}"


def weights_id(model: torch.nn.Module) -> str:
    """The start of the sha256 of all of a model's tensors, trunk and heads, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def write(rows: list[Row], kind: str, count: int, out: Path, made_with: str) -> list[dict[str, Any]]:
    """Tables and plots of one kind of landmarks."""
    table = summary(rows, kind)
    invented = sum(not row["asked"] and row["value"] is not None for row in rows)
    content: dict[str, Any] = {
        "patients": count,
        "made_with": made_with,
        "numbers_of_what_the_scan_does_not_show": invented,
        "table": table,
    }
    (out / f"{kind}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with (out / f"{kind}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    given = BY_CONSTRUCTION if kind == "true" else ()
    bland_altman(rows, f"{count} digital patients, {kind} landmarks", out / f"{kind}.png", given)
    text = [f"{count} patients; numbers given for what a scan does not show: {invented}.", "", *markdown(table)]
    print("\n".join(text))
    return table


def main() -> None:
    """Measure, compare, write; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100, help="patients with true landmarks, from seed 0 on")
    parser.add_argument("--predicted", type=int, default=0, help="patients with predicted landmarks, from seed 0 on")
    parser.add_argument("--model", default="cardiac_swin_tiny")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="tables and plots of OUT's own rows, nothing is measured")
    parser.add_argument("--rows", type=Path, default=Path("out/planning"), help="folder that keeps finished patients")
    parser.add_argument("--cache", type=Path, help="folder that keeps rendered whole scans")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.again:
        rows, before = read(args.out / "true.csv"), json.loads((args.out / "true.json").read_text(encoding="utf-8"))
        write(rows, "true", before["patients"], args.out, before["made_with"])
        return
    if args.n:
        made_with = sources_id("true")
        rows = collect(range(args.n), args.rows / f"true-{made_with}.jsonl", with_true_landmarks)
        write(rows, "true", args.n, args.out, f"sources {made_with}")
    if args.predicted:
        predictor = Predictor(args.model, device="cpu")

        def one(seed: int) -> list[Row]:
            return with_predicted_landmarks(seed, predictor, args.cache)

        made_with, weights = sources_id("predicted"), weights_id(predictor.model)
        rows = collect(range(args.predicted), args.rows / f"predicted-{made_with}-weights-{weights}.jsonl", one)
        write(rows, "predicted", args.predicted, args.out, f"sources {made_with}, weights {weights}")


if __name__ == "__main__":
    main()
