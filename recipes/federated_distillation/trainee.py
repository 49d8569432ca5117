"""Networks in and out of plain arrays: random, as they are averaged, and as they are used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from cardiac_ct_fm.errors import CardiacCTError
from cardiac_ct_fm.model import CardiacCTModel, create_model
from recipes.federated_distillation.aggregation import COARSE
from recipes.federated_distillation.messages import Arrays
from recipes.federated_distillation.objectives import Trainee
from recipes.federated_distillation.plan import Step


class SiteProblemError(CardiacCTError):
    """The site cannot do what it was asked; ``reason`` is what the server is told, the text stays here."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def initial_parameters(step: Step, seed: int) -> Arrays:
    """Random parameters of a step's network, coarse heads included; the same on every machine."""
    return arrays_of(trainee_of(step, seed))


def arrays_of(trainee: Trainee) -> Arrays:
    """Parameters as numpy arrays under the names of the model's files; coarse heads as ``coarse.<head>…``."""
    return {name: p.detach().cpu().numpy().copy() for name, p in _named(trainee)}


def model_from(step: Step, parameters: Arrays) -> CardiacCTModel:
    """The step's network with these parameters, in evaluation mode, without coarse heads.

    Raises:
        SiteProblemError: the parameters do not fit.
    """
    trainee = trainee_of(step, 0)
    load_into(trainee, parameters)
    return trainee.model.eval()


def trainee_of(step: Step, seed: int) -> Trainee:
    """A step's network with random parameters; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Trainee(create_model(step.network))


def _named(trainee: Trainee) -> Iterator[tuple[str, torch.nn.Parameter]]:
    yield from trainee.model.named_parameters()
    if trainee.coarse is not None:
        for name, parameter in trainee.coarse.named_parameters():
            yield COARSE + name.removeprefix("by_head."), parameter


def load_into(trainee: Trainee, parameters: Arrays) -> None:
    """Put parameters in; coarse heads may be missing, because published weights have none.

    Raises:
        SiteProblemError: a name or a shape does not fit.
    """
    own = dict(_named(trainee))
    wrong = [
        n for n in {*own, *parameters} if n not in parameters or n not in own or own[n].shape != parameters[n].shape
    ]
    if [n for n in wrong if not n.startswith(COARSE)]:
        raise SiteProblemError("wrong architecture", f"{len(wrong)} parameters do not fit, for example {min(wrong)}")
    with torch.no_grad():
        for name, values in parameters.items():
            if name in own:
                own[name].copy_(torch.from_numpy(np.ascontiguousarray(values)))
