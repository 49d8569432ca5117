"""Masked federated averaging: every parameter has its own numerator and denominator.

A site sends what training added to the parameters that it trained, the trunk and its own heads, and for each of them
how many scans it rests on. A parameter is averaged over the sites that trained it; one that nobody trained stays as it
is. With one site this is local training; with all labels everywhere it is FedAvg (McMahan et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.tensor_files import head_of
from recipes.federated_distillation.messages import Arrays

COARSE = "coarse."
"""Prefix of the heads of deep supervision, which are averaged like all others and never exported."""


class UpdateRefusedError(DataError):
    """A site's update cannot be used; ``reason`` is a key of :data:`.messages.REASONS`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def part_of(parameter: str) -> str:
    """The head that a parameter belongs to, or ``trunk``.

    Example:
        >>> part_of("heads.hps.weight"), part_of("backbone.encoder1.conv.weight"), part_of("coarse.hps.0.bias")
        ('hps', 'trunk', 'hps')
    """
    if parameter.startswith(COARSE):
        return parameter.split(".")[1]
    return head_of(parameter) or "trunk"


class MaskedAverage:
    """Collects sites' updates and averages them in the order of the sites' names, whenever they came.

    So the same sites always give the same bits, at the price of one update per site in memory.

    Args:
        model: the parameters that the sites were sent.
        equal: give every site the same weight, however many scans it has.
    """

    def __init__(self, model: Mapping[str, npt.NDArray[np.float32]], equal: bool = False) -> None:
        self._model, self._equal = model, equal
        self._updates: dict[str, tuple[Arrays, Mapping[str, float]]] = {}

    def add(self, site: str, changes: Arrays, counts: Mapping[str, float]) -> None:
        """Take one site's update, whole or not at all.

        Args:
            site: whose it is.
            changes: parameter → new minus old value.
            counts: ``trunk`` and heads → scans.

        Raises:
            UpdateRefusedError: a parameter is unknown, has another shape, is not finite or has no count.
        """
        if not changes:
            raise UpdateRefusedError("no data", "the update is empty")
        for name, values in changes.items():
            if name not in self._model or self._model[name].shape != values.shape:
                raise UpdateRefusedError("wrong architecture", f"{name} of shape {values.shape} is not in the network")
            count = float(counts.get(part_of(name), 0))
            if not np.isfinite(values).all() or not np.isfinite(count):
                raise UpdateRefusedError("not finite", f"{name} holds numbers that are not finite")
            if count <= 0:
                raise UpdateRefusedError("no data", f"{name} was changed, but no scan of {part_of(name)} is counted")
        self._updates[site] = (changes, dict(counts))

    def apply_to_model(self) -> Arrays:
        """The model plus the averaged changes; parameters that nobody trained as they were."""
        result: Arrays = {}
        for name, old in self._model.items():
            numerator, denominator = np.zeros(old.shape, np.float64), 0.0
            for _, (changes, counts) in sorted(self._updates.items(), key=lambda item: item[0]):
                if name in changes:
                    weight = 1.0 if self._equal else float(counts[part_of(name)])
                    numerator += weight * changes[name].astype(np.float64)
                    denominator += weight
            changed = old.astype(np.float64) + numerator / denominator if denominator else old
            result[name] = changed.astype(np.float32)
        return result
