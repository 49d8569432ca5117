"""Does the network look at the leaflets? How far its hinge points follow cusps that are turned or lifted.

    python -m recipes.benchmarks.cusp_rotation --model cardiac_swin_tiny --n 6

Each digital patient is rendered as he is, with cusps, septum and ostia turned about the root's axis beyond anatomy, and
with one hinge point after another higher and lower; only the root look is predicted, aimed at the true root. A network
that reads the leaflets follows by 1.0 degree per degree and 1.0 mm per mm, one that knows only the usual orientation
and one plane by 0 degrees, and a lift by a third of it or less.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

from cardiac_ct_fm.anatomy import HEADS, HINGE_POINTS
from cardiac_ct_fm.cohort.case import Case
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.landmark import Landmark
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import look_tensor
from cardiac_ct_fm.refinement import refined
from cardiac_ct_fm.volume_io import Volume
from recipes.benchmarks.heldout import load
from recipes.turned_roots import turned

WINDOW = 64
RCC, LCC, NCC = (HINGE_POINTS.index(name) for name in ("RCC", "LCC", "NCC"))


@torch.inference_mode()
def hinge_points(model: CardiacCTModel, case: Case) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Predicted hinge points (3, 3), body mm, in a look at the true root.

    Means of the place by the square of the network's probability, which every point has, so that none is missing; where
    there is a second look, what that makes of them. A prediction decodes more carefully and may say "not found".
    """
    look = next(look for look in model.config.looks if look.name == "root")
    true = torch.stack([case.heart.landmarks[k] for k in HINGE_POINTS]).mean(0)
    centre = true + torch.tensor([0.0, 0.0, ROOT_ABOVE_MM])
    shape = (WINDOW, WINDOW, WINDOW)
    hu, _ = case.look(centre, look.spacing_mm, shape, 0)
    grid = Grid.centred(centre.double().numpy(), look.spacing_mm, shape)
    volume = Volume(hu.round().to(torch.int16).numpy(), grid.affine, "digital patient", {})
    probability = model(look_tensor(volume, grid, model.config.intensity), heads=["hps"])["hps"].softmax(1)[0]
    names = HEADS["hps"].classes
    points = {name: Landmark.missing(name) for name in names}
    for name in HINGE_POINTS:
        weight = probability[1 + names.index(name)].double() ** 2
        x, y, z = ((grid.points_tensor() * weight[..., None]).sum((0, 1, 2)) / weight.sum()).tolist()
        points[name] = Landmark(name, True, (x, y, z), 1.0)
    if "hps" in model.refiners:
        points = refined(model, "hps", points, volume, grid)
    return np.array([points[name].ras_mm for name in HINGE_POINTS])


def turn_error_deg(case: Case, predicted: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """How far the predicted points are turned against the true ones about the normal toward the ventricle, degrees."""
    true = torch.stack([case.heart.landmarks[k] for k in HINGE_POINTS]).double().numpy()
    a, b = true - true.mean(0), predicted - predicted.mean(0)
    normal = np.cross(a[NCC] - a[RCC], a[LCC] - a[RCC])
    normal /= np.linalg.norm(normal)
    return float(
        np.degrees(np.arctan2((np.cross(a, b) @ normal).sum(), (a * b).sum() - ((a @ normal) * (b @ normal)).sum()))
    )


def lift_follow(model: CardiacCTModel, seed: int, lift_mm: float) -> list[float]:
    """How far each predicted hinge point follows its true one, mm per mm, when that alone is lifted and lowered."""
    follow = []
    for name in HINGE_POINTS:
        high, low = (turned(seed, 0.0, {}, hinges={name: mm}) for mm in (lift_mm, -lift_mm))
        true = (high.heart.landmarks[name] - low.heart.landmarks[name]).double().numpy()
        place = HINGE_POINTS.index(name)
        moved = hinge_points(model, high)[place] - hinge_points(model, low)[place]
        follow.append(float(moved @ true / (true @ true)))
    return follow


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--n", type=int, default=8, help="held-out patients, from seed 0 on")
    parser.add_argument("--turns", type=float, nargs="+", default=(-30.0, 0.0, 30.0), help="degrees")
    parser.add_argument("--lift", type=float, default=2.0, help="mm, up and down; 0 leaves this out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if 0.0 not in args.turns:
        parser.error("--turns needs 0, against which the others are held")
    torch.set_num_threads(1)
    cases = {(seed, turn): turned(seed, turn, {}) for seed in range(args.n) for turn in args.turns}
    for name in args.model:
        model = load(name)
        rows = []
        for (seed, turn), case in cases.items():
            predicted = hinge_points(model, case)
            true = torch.stack([case.heart.landmarks[k] for k in HINGE_POINTS]).double().numpy()
            rows.append(
                (seed, turn, turn_error_deg(case, predicted), float(np.linalg.norm(true - predicted, axis=1).mean()))
            )
        table = np.array(rows)
        own = np.array([table[(table[:, 0] == s) & (table[:, 1] == 0.0), 2].mean() for s in table[:, 0]])
        follow = 1 + np.polyfit(table[:, 1], table[:, 2] - own, 1)[0]
        lifted = [lift_follow(model, seed, args.lift) for seed in range(args.n)] if args.lift else []
        if args.json:
            print(json.dumps({"model": name, "follow": follow, "rows": rows, "lift_follow": lifted}))
            continue
        print(f"{name}: follows by {follow:.2f} deg/deg over {args.n} patients")
        if lifted:
            print(f"  lifted by ±{args.lift:g} mm: follows by {np.median(lifted):.2f} mm/mm (median of {3 * args.n})")
        for turn in args.turns:
            of = table[table[:, 1] == turn]
            angle = f"{of[:, 2].mean():+.1f} ± {of[:, 2].std():.1f} deg"
            print(f"  turned {turn:+.0f}: error about the axis {angle}, points {of[:, 3].mean():.1f} mm")


if __name__ == "__main__":
    main()
