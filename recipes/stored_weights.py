"""What a file of weights answers: what its precision changes, and the golden logits that a test replays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.cohort.case import draw_case
from cardiac_ct_fm.errors import WeightsError
from cardiac_ct_fm.guidance import ROOT_ABOVE_MM
from cardiac_ct_fm.model import CardiacCTModel, from_pretrained
from cardiac_ct_fm.preprocess import normalise
from cardiac_ct_fm.refinement import EDGE
from recipes.card_figures import Group

MAX_LOGIT_CHANGE = 0.1
"""What half precision may change in a logit (a choice of this project): no probability by more than 0.05, because the
slope of a logistic function is at most a quarter, and two logits may move apart."""


def golden_input(model: CardiacCTModel) -> Tensor:
    """Noise that half precision holds exactly; the deepest stage of three or four has at least 4 voxels of it."""
    edge = model.config.backbone.divisor
    shape = (2 * edge, 2 * edge, max(32, edge))
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0)).half().float()


def golden_patches(kinds: int) -> tuple[Tensor, Tensor]:
    """One patch of noise per landmark, which half precision holds exactly, and which landmark each belongs to."""
    noise = torch.randn(kinds, 1, EDGE, EDGE, EDGE, generator=torch.Generator().manual_seed(1))
    return noise.half().float(), torch.arange(kinds)


def golden(folder: Path) -> None:
    """Write the input and the logits that the exported model gives, computed in float64: no machine's own rounding."""
    model = from_pretrained(folder, dtype=torch.float64)
    x = golden_input(model)
    with torch.inference_mode():
        logits = {name: values[..., ::4, ::4, ::4].float().contiguous() for name, values in model(x.double()).items()}
    tensors = {"input": x.half()} | {f"logits.{name}": values for name, values in logits.items()}
    for name in model.refiners:
        patches, kinds = golden_patches(len(model.config.head(name).classes))
        with torch.inference_mode():
            values = model.refiners[name](patches.double(), kinds)[..., ::2, ::2, ::2]
        tensors |= {f"patches.{name}": patches.half(), f"refined.{name}": values.float().contiguous()}
    (folder / "test").mkdir(exist_ok=True)
    save_file(tensors, folder / "test" / "golden.safetensors")


def rounded(model: CardiacCTModel, dtype: torch.dtype) -> CardiacCTModel:
    """The model that is read from a file of this precision."""
    stored = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in stored.parameters():
            parameter.copy_(parameter.to(dtype).float())
    return stored


def digital_looks(model: CardiacCTModel) -> dict[str, Tensor]:
    """The first held-out patient as the network sees him, in small windows."""
    case = draw_case(0, None)
    root = torch.stack([case.heart.landmarks[name] for name in HINGE_POINTS]).mean(0).float()
    centres = {2.0: torch.zeros(3), 1.0: root + torch.tensor([0.0, 0.0, ROOT_ABOVE_MM])}
    looks = {}
    for spacing, centre in centres.items():
        hu, _ = case.look(centre, spacing, (64, 64, 64), noise_seed=0)
        looks[f"a digital patient at {spacing:g} mm"] = normalise(hu, model.config.intensity)[None, None]
    return looks


def precision_figures(model: CardiacCTModel, dtype: torch.dtype) -> Group:
    """What storing the weights so changes in the answers.

    Raises:
        WeightsError: a logit changes by more than :data:`MAX_LOGIT_CHANGE`.
    """
    stored = rounded(model, dtype)
    figures: dict[str, Any] = {}
    trunk = [
        torch.equal(a, b)
        for (n, a), b in zip(model.named_parameters(), stored.parameters(), strict=True)
        if not n.startswith("refiners.")
    ]
    if all(trunk):
        figures["trunk and heads"] = "read from files of this precision: not rounded again (docs/weights.md)"
    inputs = {} if all(trunk) else {"noise": golden_input(model), **digital_looks(model)}
    for name, x in inputs.items():
        with torch.inference_mode():
            pairs = [(a, b) for a, b in zip(model(x).values(), stored(x).values(), strict=True)]
        change = max(float((a - b).abs().max()) for a, b in pairs)
        if not change <= MAX_LOGIT_CHANGE:
            raise WeightsError(
                f"{dtype} changes a logit by {change:.2f} on {name}, and {MAX_LOGIT_CHANGE} is allowed; "
                "store these weights with --dtype float32."
            )
        others = sum(int((a.argmax(1) != b.argmax(1)).sum()) for a, b in pairs)
        span = f"{min(float(a.min()) for a, _ in pairs):.0f}…{max(float(a.max()) for a, _ in pairs):.0f}"
        figures[name] = (
            f"largest change of a logit {change:.3f} (logits {span}); "
            f"{others} of {sum(a[:, 0].numel() for a, _ in pairs)} voxels change their class"
        )
    for name in model.refiners:
        patches = golden_patches(len(model.config.head(name).classes))
        with torch.inference_mode():
            a, b = (m.refiners[name](*patches) for m in (model, stored))
        change = float((a - b).abs().max())
        if not change <= MAX_LOGIT_CHANGE:
            raise WeightsError(
                f"{dtype} changes a logit of the second look at {name} by {change:.2f}, and {MAX_LOGIT_CHANGE} is "
                "allowed; store these weights with --dtype float32."
            )
        figures[f"second look at {name}, noise"] = f"largest change of a logit {change:.3f}"
    figures["allowed"] = f"{MAX_LOGIT_CHANGE} of a logit, at most 0.05 of a probability; the export refuses more"
    options = "--run … --refiner …" if model.refiners else "--run …"
    figures["command"] = f"`python -m recipes.export_weights --model {model.config.name} {options}` prints it"
    return {f"Stored as {str(dtype).removeprefix('torch.')}, against float32": figures}
