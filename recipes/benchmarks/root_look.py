"""The look at 1 mm alone, on many held-out patients of every site: points, plane, structures and calcium in one window.

    python -m recipes.benchmarks.root_look --model cardiac_swin_tiny --out out/root

The whole predictor (``heldout``) costs twenty CPU-seconds a patient; a window around the root costs two, so there can
be two hundred patients of each site, by which nothing that is published was decided (64 of them were looked at for a
training that was not: ``docs/weights.md``, 8.). The window is aimed at the root with the error that the look before
leaves. An interrupted run goes on. ``--against`` measures other weights on the same windows, too, and tests by
patients whether one of the two is better.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.cohort.identity import cohort_sha256
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.result import Prediction
from cardiac_ct_fm.runtime import full_float32
from cardiac_ct_fm.training.comparison import compare
from cardiac_ct_fm.training.digital import held_out_case, held_out_patients, labelled_scan, patient_key
from cardiac_ct_fm.training.evaluate import Evaluation, evaluate
from cardiac_ct_fm.training.scans import LabelledScan, ScanSource
from cardiac_ct_fm.volume_io import Volume
from recipes.benchmarks.heldout import lines, load

AIM_MM = 3.0
"""SD per axis of where the window is aimed: the look at 2 mm places a hinge point 2 to 3 mm off."""


class RootLook(Predictor):
    """Takes the scan for a window of the look at 1 mm, which it is here."""

    def __call__(  # type: ignore[override]
        self,
        source: Volume,
        heads: Sequence[str] | None = None,
        quality: Literal["standard"] = "standard",
        measure: Literal[False] = False,
    ) -> Prediction:
        """Answer on the window's own grid."""
        chosen = self._heads(heads)
        look = next(look for look in self.model.config.looks if look.name == "root")
        with full_float32():
            seen = self._answer(source, look, source.grid, [*dict.fromkeys(["heart", *chosen])], None)
            prediction = Prediction(source, run={"heads": list(chosen)})
            self._decode(prediction, [seen], chosen)
        return prediction


def windows(model: CardiacCTModel, patients: Sequence[tuple[int, int]]) -> ScanSource:
    """One window around the root of each patient, with references; pairs of site and seed."""
    look = next(look for look in model.config.looks if look.name == "root")
    by_key = {patient_key(site, seed): (site, seed) for site, seed in patients}

    def load_window(key: str) -> LabelledScan:
        site, seed = by_key[key]
        case = held_out_case(seed, site)
        root = torch.stack([case.heart.landmarks[name] for name in HINGE_POINTS]).double().mean(0).numpy()
        centre = root + np.random.default_rng([seed, 23]).normal((0.0, 0.0, ROOT_ABOVE_MM), AIM_MM)
        return labelled_scan(case, seed, site, centre, look.spacing_mm, (look.window,) * 3)

    facts = {
        "cohort": cohort_sha256(),
        "look": look.name,
        "spacing_mm": look.spacing_mm,
        "shape": [look.window] * 3,
        "aim_mm": AIM_MM,
    }
    return ScanSource("windows around the roots of digital patients", tuple(by_key), load_window, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="as in ``heldout``")
    parser.add_argument(
        "--cohort",
        default="1-8/25-224",
        help="held-out patients, as in ``heldout``; by those of the default no training was judged",
    )
    parser.add_argument("--against", help="other weights, for paired tests on the same windows")
    parser.add_argument("--out", type=Path, help="folder for the tables")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)

    def tell(scan: str, done: int, total: int) -> None:
        print(f"{scan} {done}/{total}", file=sys.stderr, flush=True)

    def measured(weights: str, out: Path | None) -> Evaluation:
        predictor = RootLook(load(weights), "cpu")
        return evaluate(predictor, windows(predictor.model, held_out_patients(args.cohort)), out, progress=tell)

    found = measured(args.model, args.out)
    print(json.dumps(found.summary, indent=2) if args.json else "\n".join(lines(found.summary)))
    if args.against:
        rival = measured(args.against, args.out and args.out / "against")
        tests = compare(found.rows, rival.rows, (args.model, args.against))["tests"]
        print(json.dumps(tests, indent=2) if args.json else "\n".join(map(_told, tests)))


def _told(test: Mapping[str, Any]) -> str:
    """One test in a line: both medians, the median of the patients' differences, p after Holm."""
    first, second = (f"{m:.3f}" if (m := test[key]) is not None else "∞" for key in ("first_median", "second_median"))
    what, better = f"{test['structure']} {test['measure']}", test["better"] or "no difference shown"
    apart = "–" if (d := test["median_difference"]) is None else f"{d:+.4f}"
    return f"{what:26s} {first} against {second}, difference {apart}, p {test['p_holm']:.3g}: {better}"


if __name__ == "__main__":
    main()
