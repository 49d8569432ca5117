"""Which part of a model is fine-tuned: the head on a frozen trunk, the head with its own decoder, or everything."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cardiac_ct_fm.heads import head_input, head_maps
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.training.objectives import keep_loss
from cardiac_ct_fm.training.settings import Part


class Trainee(ABC):
    """A model with a new head, and the part of it that learns.

    Args:
        model: with the head on it; its parameters are frozen as the part demands.
        head: name of the new head.

    Attributes:
        network: the modules that learn; the average of their weights is kept.
        takes_features: whether windows bring the trunk's features in place of the image.
    """

    takes_features = False
    network: nn.Module

    def __init__(self, model: CardiacCTModel, head: str) -> None:
        self.model, self.head = model, head
        self.others = [name for name in model.heads if name != head]

    @abstractmethod
    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        """The head's logits (B, C, X, Y, Z) with ``network`` (the learning one, or its average) in place."""

    def learn(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The learning network's logits, and what it costs that other heads change (None where they cannot)."""
        return self.logits(self.network, x), None

    def groups(self, lr: float, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer."""
        return self.model.param_groups(lr, layer_decay, weight_decay)

    def adopt(self, average: nn.Module) -> None:
        """Put the averaged weights into the model."""
        self.network.load_state_dict(average.state_dict())


class HeadTrainee(Trainee):
    """The head alone: the trunk's features never change and are computed once."""

    takes_features = True

    def __init__(self, model: CardiacCTModel, head: str) -> None:
        super().__init__(model, head)
        model.freeze("trunk", *self.others)
        self.network = model.heads[head]

    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        """See :meth:`Trainee.logits`; ``x`` is what the head reads (B, C, X, Y, Z)."""
        result: Tensor = network(x)
        return result

    @torch.no_grad()
    def features(self, image: Tensor) -> list[Tensor]:
        """What the head reads of an image (1, X, Y, Z): maps (C, x, y, z) at their own resolution, the finest last."""
        x = image[None].to(next(self.model.parameters()).device)
        parts = head_maps(self.model.config.head(self.head), self.model.decoder_maps(x), x)
        return [part[0].float().cpu() for part in parts]


class DecoderTrainee(Trainee):
    """The head and its own decoder on the frozen encoder."""

    def __init__(self, model: CardiacCTModel, head: str) -> None:
        super().__init__(model, head)
        model.freeze("trunk", *self.others)
        self.network = nn.ModuleDict({"decoder": model.decoders[head], "head": model.heads[head]})

    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        """See :meth:`Trainee.logits`; ``x`` is the image (B, 1, X, Y, Z)."""
        assert isinstance(network, nn.ModuleDict)
        with torch.no_grad():
            skips = self.model.backbone.encode(x)
        maps = self.model.backbone.decode_maps(skips, list(network["decoder"].children()))
        result: Tensor = network["head"](head_input(self.model.config.head(self.head), maps, x))
        return result


class WholeTrainee(Trainee):
    """Everything; a frozen copy of the model reminds the other heads of what they said."""

    def __init__(self, model: CardiacCTModel, head: str) -> None:
        super().__init__(model, head)
        self.network = model
        self.before = copy.deepcopy(model).eval().requires_grad_(False)

    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        """See :meth:`Trainee.logits`; ``x`` is the image (B, 1, X, Y, Z)."""
        result: dict[str, Tensor] = network(x, heads=[self.head])
        return result[self.head]

    def learn(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Trainee.learn`."""
        now = self.model(x)
        logits = now.pop(self.head)
        if not now:
            return logits, None
        with torch.no_grad():
            before = self.before(x, heads=list(now))
        return logits, keep_loss(now, before)


def trainee(part: Part, model: CardiacCTModel, head: str) -> Trainee:
    """The trainee of a part."""
    kinds: dict[str, type[Trainee]] = {"head": HeadTrainee, "decoder": DecoderTrainee, "all": WholeTrainee}
    return kinds[part](model, head)
