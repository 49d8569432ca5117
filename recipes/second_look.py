"""The second look at points (``cardiac_ct_fm/refinement.py``) put to a network: it was trained without one.

So what ``recipes.refine`` trained, or what other weights have, serves every network that has the same points, also one
that hospitals have trained further in a federation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.model import CardiacCTModel, create_model, from_pretrained
from cardiac_ct_fm.tensor_files import read_metadata
from recipes.refine import HEAD, NAMES

PREFIX = f"refiners.{HEAD}."
"""What the names of its tensors begin with in a file of weights."""


def joined(model: CardiacCTModel, tensors: Mapping[str, Tensor]) -> CardiacCTModel:
    """The model with a second look at its points; all its other weights stay to the bit.

    Args:
        model: has the head of hinge points and ostia.
        tensors: of the second look, as a file of weights names them (:data:`PREFIX`).

    Raises:
        UsageError: the model has no such head, or one with other points.
    """
    own = {head.name: head.classes for head in model.config.heads}.get(HEAD)
    if own != NAMES:
        raise UsageError(
            f"The second look is at {', '.join(NAMES)}, and the head {HEAD!r} of {model.config.name} has "
            f"{', '.join(own or ()) or 'none of them'}; train one for these points."
        )
    width = tensors[f"{PREFIX}last.weight"].shape[1]
    heads = [dataclasses.replace(h, refine=width) if h.name == HEAD else h for h in model.config.heads]
    whole = create_model(model.config.replace(heads=tuple(heads))).eval()
    whole.load_state_dict(dict(model.state_dict()) | dict(tensors))
    return whole


def with_refiner(model: CardiacCTModel, source: str) -> tuple[CardiacCTModel, dict[str, Any]]:
    """The model with the second look of a training or of other weights, and the provenance of that.

    Args:
        model: what it joins.
        source: a folder of ``recipes.refine``, or weights that have a second look.

    Raises:
        UsageError: it does not fit (see :func:`joined`), or the source's weights have no second look.
        WeightsError: the source is neither.
    """
    run = Path(source)
    if (run / "runs.json").exists():
        trained = run / "average.safetensors"
        tensors = {PREFIX + name: values for name, values in load_file(trained).items()}
        runs = json.loads((run / "runs.json").read_text(encoding="utf-8"))
        return joined(model, tensors), {"refiner_steps": int(read_metadata(trained)["step"]), "refiner_runs": runs}
    lender = from_pretrained(source)
    tensors = {name: values for name, values in lender.state_dict().items() if name.startswith(PREFIX)}
    if not tensors:
        raise UsageError(f"{source} has no second look at {HEAD}; name weights that have one.")
    return joined(model, tensors), {k: v for k, v in lender.config.provenance.items() if k.startswith("refiner_")}
