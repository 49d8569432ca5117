"""Turns the averaged weights of a training run into a published model.

    WEIGHTS=cardiac_swin_tiny=runs/tiny/average.safetensors
    python -m recipes.benchmarks.heldout --model $WEIGHTS --n 12 --strength 0.7 --out out/heldout
    python -m recipes.benchmarks.real_scan --model $WEIGHTS > out/real.json
    python -m recipes.export_weights --run runs/tiny --heldout out/heldout/summary.json --real out/real.json

The card's provenance names every command and commit that trained the file, in order; its figures are those of the
benchmarks, and figures of other weights are refused. Models of up to 10 MB go into the package, larger ones into
``weights/`` of the clone, with a description in the package. Beside the weights lies ``test/golden.safetensors``: an
input and every head's logits on a coarser grid, made from the file as it was written; ``tests/test_golden.py`` replays
it. ``--refiner`` puts what ``recipes.refine`` trained, or the second look of other weights, into these weights or,
without ``--run``, into those of ``--base``, whose other weights stay to the bit and whose description stays: what a
federation exported as ``cardiac_swin_tiny.fedkd`` gets the published second look with ``--base FOLDER --tag fedkd
--refiner cardiac_swin_tiny --out WHERE``. ``--card-only`` writes card, configuration and ``registry.json`` anew and
leaves the weights to the byte; without ``--run`` it keeps what they say of the training, and it keeps the figures of
every benchmark that is not given anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.model import CardiacCTModel, create_model, from_pretrained
from cardiac_ct_fm.publish import export_pretrained, rewrite_card
from cardiac_ct_fm.registry import ASSETS, ELSEWHERE, clone_weights, model_info
from cardiac_ct_fm.tensor_files import read_metadata
from cardiac_ct_fm.training.evaluate import weights_sha256
from cardiac_ct_fm.weights import CONFIG_FILE
from recipes.benchmarks.planning import weights_id
from recipes.card_figures import (
    Group,
    held_out_figures,
    merged,
    real_scan_figures,
    robustness_figures,
    root_look_figures,
)
from recipes.pretrain import STARTED_FROM
from recipes.second_look import with_refiner
from recipes.stored_weights import golden, precision_figures, rounded

DESCRIPTION = "100 % synthetic: trained on one machine on the digital cohort alone; not federated, not distilled."

BUNDLED_BYTES = 10_000_000
"""The package holds a model of up to this size (a choice of this project)."""

DEFAULT_MODEL = "cardiac_swin_tiny"
"""What ``recipes.pretrain`` trains where its command names no model."""


def provenance_of(runs: Sequence[Path], model: CardiacCTModel) -> dict[str, Any]:
    """Data, commands and commits of trainings, each from the weights of the one before.

    Raises:
        UsageError: a training does not start from the one before, the first starts from weights of a training that is
            neither named nor published, or the last trained another model.
    """
    pieces: list[dict[str, Any]] = []
    steps: dict[str, int] = {}
    before: Path | None = None
    for run in runs:
        own = json.loads((run / "runs.json").read_text(encoding="utf-8"))
        start = _option(own[0]["command"], "--start-from")
        if before is None and (run / STARTED_FROM).exists():
            published = json.loads((run / STARTED_FROM).read_text(encoding="utf-8"))["provenance"]
            if "grown" in published:
                raise UsageError(f"{run} started from {start}, which grew; name all trainings with --run.")
            pieces += published["runs"]
            steps[pieces[-1]["model"]] = int(published["steps"])
        elif before is None and start is not None:
            raise UsageError(f"{run} started from {start}; name the runs before it with --run, too, in order.")
        if before is not None and (start is None or Path(start).parent.name != before.name):
            raise UsageError(f"{run} started from {start or 'random weights'}, not from {before}; check the order.")
        name = _option(own[-1]["command"], "--model") or DEFAULT_MODEL
        steps[name] = steps.get(name, 0) + int(read_metadata(run / "average.safetensors")["step"])
        pieces += [{**piece, "model": name} for piece in own]
        before = run
    if pieces[-1]["model"] != model.config.name:
        raise UsageError(f"{runs[-1]} trained {pieces[-1]['model']}, not {model.config.name}; give its --model.")
    facts: dict[str, Any] = {
        "data": "digital cohort only: no image of any person was used for training",
        "synthetic_share": "100 %",
        "seed": "in each command; 0 where none is named",
        "recipe": "recipes/pretrain.py",
        "steps": sum(steps.values()),
    }
    if len(steps) > 1:
        spent = " and ".join(f"{count} of {name}" for name, count in steps.items())
        stages = len(model.config.backbone.depths)
        facts["grown"] = f"steps: {spent}, whose trunk of {stages} stages grew out of the one before (recipes/grown.py)"
    return {**facts, "runs": pieces}


def _option(command: Sequence[str], name: str) -> str | None:
    """The value of an option of a command, written as two words or with an equals sign."""
    glued = [word.partition("=")[2] for word in command if word.startswith(f"{name}=")]
    return command[command.index(name) + 1] if name in command else next(iter(glued), None)


def description_of(source: str) -> str:
    """The line for people that describes weights, given by name or folder."""
    folder = Path(source)
    info = ModelInfo.from_manifest(folder / MANIFEST) if folder.is_dir() else model_info(source)
    return info.description


def check_measured(file: Path, model: CardiacCTModel, dtype: torch.dtype) -> None:
    """Figures belong to these weights, before or after rounding, and to their looks.

    Raises:
        UsageError: they do not.
    """
    measured_with = json.loads(file.read_text(encoding="utf-8"))
    if "weights_sha256" not in measured_with:
        raise UsageError(f"{file} does not say with which weights it was measured; measure again.")
    if measured_with["weights_sha256"] not in {weights_sha256(model), weights_sha256(rounded(model, dtype))}:
        raise UsageError(f"{file} was measured with other weights; measure again.")
    if measured_with["config"]["looks"] != json.loads(json.dumps(model.config.to_dict()["looks"])):
        raise UsageError(f"{file} was measured with other looks; measure again.")


def described(folder: Path) -> None:
    """Weights in the clone's ``weights/`` get a description in the package."""
    clone = clone_weights()
    if clone is not None and folder.resolve().parent == clone.resolve():
        ELSEWHERE.mkdir(exist_ok=True)
        shutil.copyfile(folder / MANIFEST, ELSEWHERE / f"{folder.name}.json")


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    again = {"action": "append", "default": []}
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="folders of recipes.pretrain, in order")
    parser.add_argument("--refiner", help="folder of recipes.refine, or weights whose second look is taken over")
    parser.add_argument(
        "--base", help="weights that --refiner joins, where --run gives none (default: the published); needs --out"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--tag", default="synthetic")
    parser.add_argument("--heldout", type=Path, **again, help="summary.json of recipes.benchmarks.heldout; repeatable")
    parser.add_argument("--root-look", type=Path, help="summary.json of recipes.benchmarks.root_look")
    parser.add_argument("--real", type=Path, help="what recipes.benchmarks.real_scan printed")
    parser.add_argument("--robustness", type=Path, help="robustness.json of recipes.benchmarks.robustness")
    parser.add_argument("--limitation", **again, help="a sentence for the card; repeatable")
    parser.add_argument("--picture", nargs=2, **again, metavar=("FILE", "CAPTION"), help="for the card; repeatable")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--card-only", action="store_true", help="leave the weights that are published as they are")
    parser.add_argument("--out", type=Path, help="a folder of weights (default: by size)")
    args = parser.parse_args(arguments)
    if not args.run and not args.refiner and not args.card_only:
        parser.error("--run or --refiner is needed, except with --card-only")
    if args.base and not args.out:
        parser.error("--base needs --out: what is made of other weights does not go among the published ones")
    if args.refiner and args.card_only:
        parser.error("--card-only writes no weights, and --refiner brings some")
    args.dtype = getattr(torch, args.dtype)
    return args


def measured(args: argparse.Namespace, model: CardiacCTModel) -> Group:
    """The groups of figures that the command line names; their commands load these weights."""
    figures: Group = {}
    name = f"{args.model}.{args.tag}" if args.base else args.model
    for file in args.heldout:
        check_measured(file, model, args.dtype)
        figures |= held_out_figures(file, name)
    if args.root_look:
        check_measured(args.root_look, model, args.dtype)
        figures |= root_look_figures(args.root_look, name)
    if args.real:
        check_measured(args.real, model, args.dtype)
        figures |= real_scan_figures(args.real, name)
    if args.robustness:
        about = json.loads(args.robustness.read_text(encoding="utf-8"))["about"]
        if about["weights"] not in {weights_id(model), weights_id(rounded(model, args.dtype))}:
            raise UsageError(f"{args.robustness} was measured with other weights; measure again.")
        looks = json.loads(json.dumps(model.config.to_dict()["looks"]))
        if about.get("looks", looks) != looks:  # figures of before the looks were noted are taken
            raise UsageError(f"{args.robustness} was measured with other looks; measure again.")
        figures |= robustness_figures(args.robustness, name)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Export; see the module's docstring."""
    args = options(arguments)
    model = create_model(args.model).eval()
    small = model.num_parameters * args.dtype.itemsize <= BUNDLED_BYTES
    out = args.out or (ASSETS if small else ASSETS.parents[1] / "weights")
    folder = out / f"{args.model}.{args.tag}"
    if args.run and not args.refiner and not args.card_only and folder.is_dir():
        second = [head.name for head in ModelConfig.load(folder / CONFIG_FILE).heads if head.refine]
        if second:
            raise UsageError(f"{folder} looks at {', '.join(second)} again; give its --refiner, or remove the folder.")
    description = DESCRIPTION
    pictures = {Path(file): caption for file, caption in args.picture}
    limits = {"limitations": args.limitation} if args.limitation else {}
    if args.run:
        model.load_state_dict(load_file(args.run[-1] / "average.safetensors"))
        provenance = provenance_of(args.run, model) | limits
    elif args.refiner:
        model = from_pretrained(args.base or folder.name)
        if model.config.name != args.model:
            raise UsageError(f"{args.base} is a {model.config.name}; give --model {model.config.name}.")
        provenance, description = model.config.provenance | limits, description_of(args.base or folder.name)
    if args.refiner:
        model, facts = with_refiner(model, args.refiner)
        provenance |= facts
        if "second_look" in provenance:  # a federation's figures are without it, those here are with it
            provenance["second_look"] = f"of {args.refiner}; no hospital trained it"
    if args.card_only:
        published, old = from_pretrained(folder), ModelInfo.from_manifest(folder / MANIFEST)
        if not args.run:
            model, provenance = published, old.provenance | limits
        elif weights_sha256(rounded(model, args.dtype)) != weights_sha256(published):
            raise UsageError(f"{args.run[-1]} holds other weights than {folder}; --card-only does not write weights.")
    precision = precision_figures(model, args.dtype) if args.run or args.refiner else {}
    if args.card_only:
        figures = merged(old.metrics, {**measured(args, model), **precision})
        provenance = {"limitations": old.provenance.get("limitations", []), **provenance}
        rewrite_card(folder, provenance=provenance, metrics=figures, pictures=pictures or None)
    else:
        model._set_config(model.config.replace(provenance=provenance))
        figures = {**measured(args, model), **precision}
        export_pretrained(
            model, out, tag=args.tag, description=description, metrics=figures, pictures=pictures,
            default=not args.base, dtype=args.dtype,
        )  # fmt: skip
        golden(folder)
    described(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>10,} bytes  {path}")
    for title, group in precision.items():
        print("\n".join([title, *(f"  {name}: {text}" for name, text in group.items())]))


if __name__ == "__main__":
    main()
