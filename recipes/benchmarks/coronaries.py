"""How few labels does a new head need, and on which trunk? Coronary arteries, with the trunk frozen as in the paper.

    python -m recipes.benchmarks.coronaries --out docs/coronaries
    python -m recipes.benchmarks.coronaries --reduced --out docs/coronaries --scan ct.nii.gz
    python -m recipes.benchmarks.coronaries --out docs/coronaries --trunk "transformer=cardiac_swin_tiny" \
        --trunk "federated U-Net=cardiac_unet_small=average.safetensors"

``--hidden 0`` is the paper's experiment, the last convolution alone, on the same windows, blocks and updates, with its
own learning rate; the default is the head that ``finetune`` gives coronaries. ``--reduced`` asks less: 5, 10 and 20
labelled scans, 6 held-out patients, fewer updates.

A trunk is ``NAME=SOURCE``; a source is what ``from_pretrained`` takes, ``ARCHITECTURE=weights.safetensors``, or
``random:ARCHITECTURE``. Heads learn on digital patients that no trunk has seen and are measured on others, over the
box of the true chambers, so that a trunk without a usable heart head is not punished for that. Every head, every
patient's scores and every scan are kept in ``--work``; a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.files import atomic_write, write_json
from cardiac_ct_fm.guidance import AROUND_MM, CHAMBERS
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.label_resampling import resample_logits_to_grid
from cardiac_ct_fm.looks import answer, window_grid
from cardiac_ct_fm.model import CardiacCTModel, create_model
from cardiac_ct_fm.preview import write_preview
from cardiac_ct_fm.tensor_files import read_metadata, read_tensors
from cardiac_ct_fm.training.digital import digital_source
from cardiac_ct_fm.training.finetune import finetune
from cardiac_ct_fm.training.metrics import cldice, dice
from cardiac_ct_fm.training.scans import LabelledScan
from cardiac_ct_fm.training.settings import HIDDEN_CHANNELS, FinetuneSettings
from cardiac_ct_fm.training.statistics import interval, mean, paired_test
from recipes.benchmarks.heldout import load

HEAD = "coronaries"
DEFAULT_TRUNKS = ("transformer=cardiac_swin_tiny", "random transformer=random:cardiac_swin_tiny")
ASKED = ("transformer", "federated U-Net", "random transformer")
"""Trunks that the comparison is about; the picture names those that were not there."""

LABELLED_FROM = 100
"""Heads learn on patients of no site from this seed on, and are measured on those from 0 on; trunks saw neither."""

STRENGTH, SHAPE = 0.7, (144, 144, 144)
"""Digital patients with the domain randomisation of a digital site, 144 mm around the heart at 1 mm."""

WINDOWS = 2
"""Windows per labelled scan."""

REDUCED: dict[str, Any] = {"labelled": [5, 10, 20], "held_out": 6, "updates": 200}
FULL: dict[str, Any] = {"labelled": [5, 10, 20, 40], "held_out": 20, "updates": 800}

COLOURS = ("#1f77b4", "#d95f02", "#7f7f7f", "#7570b3")


def trunk_of(source: str) -> CardiacCTModel:
    """The network of a source."""
    kind, _, name = source.partition(":")
    return create_model(name, seed=0).eval() if kind == "random" else load(source)


def home_of(trunk: CardiacCTModel, work: Path) -> Path:
    """The folder of a trunk's heads and of what was measured on it."""
    return work / f"{trunk.config.name}-{trunk.trunk_sha256()[:12]}"


def trained(trunk: CardiacCTModel, count: int, work: Path, updates: int, hidden: int) -> Path:
    """The file of a head that learned on so many scans; one that is there already is not learned again."""
    numbers = f"{LABELLED_FROM}-{LABELLED_FROM + count - 1}"
    scans = digital_source(numbers, strength=STRENGTH, shape=SHAPE, cache=work / "scans")
    steps = -(-len(scans.keys) * WINDOWS // 2)
    settings = FinetuneSettings(
        epochs=-(-updates // steps), hidden=hidden, windows=WINDOWS, validation=0.0, cache_gb=8.0
    )
    folder = home_of(trunk, work) / f"{count}-{updates}-{hidden}"
    result = finetune(trunk, {"training": scans}, HEAD, out=folder, settings=settings)
    assert result.path is not None
    return result.path


def with_heads(trunk: CardiacCTModel, files: dict[int, Path], hidden: int) -> CardiacCTModel:
    """The trunk with one head per number of labelled scans, so that a window is computed once for all."""
    for count, file in files.items():
        classes = [f"{name}_{count}" for name in HeadConfig.builtin(HEAD).classes]
        trunk.add_head(f"{HEAD}_{count}", classes, hidden=hidden, looks=("detail",))
        tensors = {k.removeprefix(f"heads.{HEAD}."): v for k, v in read_tensors([file]).items()}
        trunk.heads[f"{HEAD}_{count}"].load_state_dict(tensors)
    return trunk.eval()


def scores(model: CardiacCTModel, scan: LabelledScan) -> dict[str, dict[str, float]]:
    """Dice and clDice of every head on one patient; 0 where nothing was found."""
    chambers = np.isin(scan.label_maps["heart"], [HEART_LABELS[c] for c in CHAMBERS])
    where = scan.volume.grid.world(np.argwhere(chambers))
    low, high = where.min(0) - AROUND_MM, where.max(0) + AROUND_MM
    look = model.config.look("detail")
    heads = [name for name in model.heads if name.startswith(HEAD)]
    seen = answer(model, scan.volume, look, window_grid(look, (low + high) / 2, high - low), heads, nullcontext)
    truth = scan.label_maps[HEAD] > 0
    result = {}
    for head in heads:
        found = resample_logits_to_grid(seen.logits[head], seen.grid, scan.volume.grid) > 0
        both = {"dice": dice(found, truth), "cldice": cldice(found, truth)} if found.any() else {}
        result[head.removeprefix(f"{HEAD}_")] = both or {"dice": 0.0, "cldice": 0.0}
    return result


def experiment(
    trunks: dict[str, str],
    labelled: list[int],
    held_out: int,
    work: Path,
    updates: int,
    hidden: int = HIDDEN_CHANNELS,
) -> dict[str, Any]:
    """All trunks, all numbers of labelled scans; plain JSON types."""
    test = digital_source(f"0-{held_out - 1}", strength=STRENGTH, shape=SHAPE, cache=work / "scans")
    found: dict[str, Any] = {}
    values: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name, source in trunks.items():
        trunk = trunk_of(source)
        home = home_of(trunk, work)
        files = {}
        for count in labelled:
            files[count] = trained(trunk, count, work, updates, hidden)
            print(f"{name}: head of {count} scans", flush=True)
        model = with_heads(trunk, files, hidden)
        rows = []
        for key in test.keys:
            file = home / f"{key}-{'-'.join(map(str, labelled))}-{updates}-{hidden}.json"
            if not file.exists():
                write_json(file, scores(model, test.load(key)))
            rows.append(json.loads(file.read_text(encoding="utf-8")))
            print(f"{name}: {key} {rows[-1]}", flush=True)
        values[name] = {
            f"{n}": np.array([[row[f"{n}"][m] for m in ("dice", "cldice")] for row in rows]) for n in labelled
        }
        figures: dict[str, dict[str, Any]] = {
            n: {m: _figures(v[:, i]) for i, m in enumerate(("dice", "cldice"))} for n, v in values[name].items()
        }
        found[name] = {**_about(trunk, source), "labelled": figures}
    last, first = f"{max(labelled)}", next(iter(values))
    measures = tuple(enumerate(("dice", "cldice")))
    tests = {
        other: {m: paired_test(values[first][last][:, i], v[last][:, i]).to_dict() for i, m in measures}
        for other, v in values.items()
        if other != first
    }
    return {
        "what": f"coronary arteries of digital patients on a frozen trunk by {_head_in_words(hidden)}",
        "head": _head_in_words(hidden),
        "not_there": [name for name in ASKED if name not in trunks],
        "held_out_patients": held_out,
        "settings": {
            "strength": STRENGTH,
            "shape": list(SHAPE),
            "updates": updates,
            "windows": WINDOWS,
            "hidden": hidden,
        },
        "trunks": found,
        f"{first}_minus_other_at_{last}": tests,
    }


def _head_in_words(hidden: int) -> str:
    return f"a head with two hidden layers of {hidden} channels" if hidden else "the last layer alone"


def _figures(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    ends = interval(values[:, None], mean)
    return {"mean": float(values.mean()), "ci95": None if ends is None else list(ends), "values": values.tolist()}


def _about(trunk: CardiacCTModel, source: str) -> dict[str, Any]:
    """What a trunk is and how long it was trained."""
    provenance = trunk.config.provenance
    steps = provenance.get("steps")
    weights = source.partition("=")[2]
    if steps is None and weights:
        told = read_metadata(Path(weights)).get("step")
        steps = None if told is None else int(told)
    random = source.startswith("random:")
    return {
        "source": source,
        "model": trunk.config.name,
        "trunk_sha256": trunk.trunk_sha256(),
        "trunk_parameters": sum(p.numel() for p in trunk.backbone.parameters()),
        "last_map_channels": trunk.backbone.out_channels,
        "trained_steps": 0 if random else steps,
        "federated": bool(provenance.get("federated", False)),
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Mean and 95 % interval against the number of labelled scans."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, measure, title in zip(figure.subplots(1, 2), ("dice", "cldice"), ("Dice", "clDice"), strict=True):
        for number, (name, trunk) in enumerate(result["trunks"].items()):
            counts = [int(n) for n in trunk["labelled"]]
            own = [row[measure] for row in trunk["labelled"].values()]
            middle = np.array([row["mean"] for row in own])
            ends = np.array([row["ci95"] for row in own]).T
            place = np.array(counts) * (1 + 0.03 * (number - 1))
            steps = trunk["trained_steps"]
            label = f"{name} (untrained)" if steps == 0 else f"{name} ({steps} steps)" if steps else name
            spread = np.abs(ends - middle)
            ax.errorbar(place, middle, spread, marker="o", capsize=3, color=COLOURS[number % 4], label=label)
        ax.set_xscale("log")
        ax.set_xticks(counts, [str(n) for n in counts])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel("labelled scans")
        ax.set_ylabel(f"{title} of the coronary arteries")
    figure.axes[0].legend(fontsize=8)
    people = f"{result['held_out_patients']} held-out digital patients"
    absent = f"\nNot trained yet, so not shown: {', '.join(result['not_there'])}" if result["not_there"] else ""
    head = result["head"]
    figure.suptitle(f"{head[0].upper()}{head[1:]}; mean and 95 % interval on {people}{absent}", fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def show(source: str, head: Path, scan: Path, picture: Path) -> float:
    """Draw a trunk's heart and the new head on a real scan; nobody has labelled it, so people have to look.

    Returns:
        mL of coronary arteries that were found.
    """
    trunk = trunk_of(source)
    trunk.load_head(head)
    pred = Predictor(trunk)(scan, heads=["heart", HEAD], measure=False)
    write_preview(picture, pred.volume, pred.landmarks, pred.label_maps, None, pred.classes)
    return float(np.count_nonzero(pred.label_maps[HEAD]) * pred.grid.voxel_mm3 / 1000)


def main() -> None:
    """Run and draw; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--trunk", action="append", metavar="NAME=SOURCE", help="may be repeated; the first is compared"
    )
    parser.add_argument("--reduced", action="store_true", help="fewer labelled scans and held-out patients")
    parser.add_argument("--labelled", type=int, nargs="+", help="numbers of labelled scans")
    parser.add_argument("--held-out", type=int, help="patients that are measured")
    parser.add_argument("--hidden", type=int, default=HIDDEN_CHANNELS, help="0: the last convolution alone")
    parser.add_argument("--out", type=Path, default=Path("docs/coronaries"), help="without ending: .json and .png")
    parser.add_argument("--work", type=Path, default=Path("runs/coronaries"))
    parser.add_argument("--scan", type=Path, help="a real scan on which the first trunk's best-fed head is drawn")
    parser.add_argument("--updates", type=int, help="per head, two windows each")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trunks = dict(item.split("=", 1) for item in args.trunk or DEFAULT_TRUNKS)
    began = time.process_time()
    size = REDUCED if args.reduced else FULL
    labelled, held_out = sorted(args.labelled or size["labelled"]), args.held_out or size["held_out"]
    updates = args.updates or size["updates"]
    result = experiment(trunks, labelled, held_out, args.work, updates, args.hidden)
    if args.scan is not None:
        name = next(iter(trunks))
        picture = args.out.with_name(f"{args.out.name}_real_scan.png")
        head = trained(trunk_of(trunks[name]), labelled[-1], args.work, updates, args.hidden)
        result["real_scan"] = {"scan": args.scan.name, "head": name, "mL": show(trunks[name], head, args.scan, picture)}
    spent = args.work / "cpu_seconds.json"
    before = json.loads(spent.read_text())["cpu_seconds"] if spent.exists() else 0.0
    write_json(spent, {"cpu_seconds": before + time.process_time() - began})
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    command = ["python", "-m", "recipes.benchmarks.coronaries", *sys.argv[1:]]
    write_json(args.out.with_suffix(".json"), {**result, "command": command, "commit": commit})
    draw(result, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
