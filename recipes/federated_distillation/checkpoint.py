"""Where training begins or what is tested: random parameters, or a checkpoint that must fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.tensor_files import head_of, read_tensors
from recipes.federated_distillation.aggregation import COARSE
from recipes.federated_distillation.messages import Arrays
from recipes.federated_distillation.networks import begins_at_checkpoint
from recipes.federated_distillation.plan import Step, final_step
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.trainee import initial_parameters
from recipes.second_look import PREFIX


def starting_parameters(settings: Settings, step: Step) -> Arrays:
    """Parameters that a step begins with: the checkpoint's for what comes out, else random ones.

    Teachers with the same trunk take what the checkpoint has of them; others begin at random.

    Raises:
        ConfigError: the checkpoint does not fit (see :func:`check`).
        WeightsError: it cannot be read.
    """
    start = initial_parameters(step, settings.seed)
    if not settings.ckpt or (step.stage == "teach" and not begins_at_checkpoint(settings, step.network)):
        return start
    given = _read(settings.ckpt)
    if step.stage == "teach":
        given = {name: values for name, values in given.items() if name in start and values.shape == start[name].shape}
    else:
        _compare(settings, step, start, given)
    return {name: given.get(name, values) for name, values in start.items()}


def check(settings: Settings, plan: list[Step]) -> None:
    """Refuse a checkpoint that does not fit, before any round starts.

    Raises:
        ConfigError: another architecture, or heads are missing that are not about to be trained anew.
        WeightsError: it cannot be read.
    """
    if settings.ckpt:
        starting_parameters(settings, plan[0] if settings.mode == "test" else final_step(plan))


def _foreign(start: Arrays, given: Arrays) -> list[str]:
    """Parameters of the trunk that the checkpoint lacks or has in another shape."""
    return [
        n for n, values in start.items()
        if head_of(n) is None and not n.startswith(COARSE) and (n not in given or given[n].shape != values.shape)
    ]  # fmt: skip


def digest(settings: Settings) -> str:
    """What the checkpoint holds, as a hash: under one name other weights may be published later.

    Raises:
        WeightsError: it cannot be read.
    """
    found = hashlib.sha256()
    for name, values in sorted(_read(settings.ckpt).items()):
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def second_look(settings: Settings) -> Arrays:
    """What the checkpoint has of a second look at points; sites do not train it, and the export gives it back.

    Raises:
        WeightsError: the checkpoint cannot be read.
    """
    return {name: values for name, values in _read(settings.ckpt).items() if name.startswith(PREFIX)}


def public_name(ckpt: str) -> str:
    """A checkpoint as a card names it: a Hub repository whole, of a folder or file its name alone."""
    path, repository = Path(ckpt).expanduser(), ckpt.partition("@")[0]
    on_hub = repository.count("/") == 1 and not repository.startswith((".", "/", "~"))
    return ckpt if on_hub and not path.exists() else path.name


def _read(source: str) -> Arrays:
    """Tensors of a safetensors file, or of anything that ``from_pretrained`` takes."""
    if source.endswith(".safetensors"):
        return {k: v.numpy() for k, v in read_tensors([Path(source)]).items()}
    model = CardiacCTModel.from_pretrained(source)
    return {k: p.detach().numpy() for k, p in model.named_parameters()}


def _compare(settings: Settings, step: Step, start: Arrays, given: Arrays) -> None:
    """Same trunk, and the heads that are wanted."""
    if wrong := _foreign(start, given):
        raise ConfigError(
            f"ckpt {settings.ckpt} is not a {step.network.name}: {len(wrong)} parameters of the trunk differ, for "
            f"example {wrong[0]}. Choose its --model-type and --size, or another checkpoint."
        )
    held = sorted({h for n in given if (h := head_of(n))})
    missing = [h for h in step.heads if h not in held]
    if missing and not settings.finetune:
        raise ConfigError(
            f"ckpt {settings.ckpt} has the heads {', '.join(held) or 'none'}, but {', '.join(missing)} is needed; "
            "choose another checkpoint or task, or train new heads on it with --finetune."
        )
    shapes = [n for n in start if head_of(n) in held and n in given and given[n].shape != start[n].shape]
    if shapes:
        raise ConfigError(
            f"ckpt {settings.ckpt}: {shapes[0]} has shape {given[shapes[0]].shape}, not {start[shapes[0]].shape}."
        )
