"""What crosses the wire: orders to the sites and their replies. Parameters, counts and metrics; nothing else exists.

A reply's only text is the site's own name, the step's name, one of :data:`REASONS` and the names of heads, structures
and figures, all of them checked, so that no path, subject name or error text of a hospital can slip into it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.errors import DataError

Arrays = dict[str, npt.NDArray[np.float32]]
"""Parameter name → values."""

REASONS: dict[str, str] = {
    "no data": "it has no scan that this step can use",
    "not finite": "its training left the finite numbers",
    "disk full": "it could not write its working files",
    "wrong architecture": "the parameters that it was sent or sent back do not fit the network",
    "failed": "its code failed; its own log says why",
    "no answer": "it did not answer in time",
}
"""Why a site is left out of a step. The details stay in the site's own log."""

FIGURES = frozenset({"loss", "scans", "pseudo", "kept", "dropped", "seconds", "steps"})
"""Figures of a head, or of all: one number each."""

LISTS = frozenset({"points", "dice"})
"""Figures of a head's structures: a list of numbers each."""


@dataclass
class Order:
    """What the server asks of a site.

    Attributes:
        step: name of a step of the plan, which sites know from the settings.
        kind: ``train``, ``label`` or ``test``.
        round: number of the round, from 0.
        parameters: name of a network → its parameters.
    """

    step: str
    kind: str
    round: int
    parameters: dict[str, Arrays] = field(default_factory=dict)

    def facts(self) -> str:
        """All but the parameters, as JSON."""
        return json.dumps({"step": self.step, "kind": self.kind, "round": self.round})


@dataclass
class Reply:
    """What a site answers.

    Attributes:
        site: its name.
        step: the order's step.
        round: the order's round.
        left_out: a key of :data:`REASONS`, or empty.
        counts: ``trunk`` and heads → number of scans that trained it.
        metrics: head or ``all`` → :data:`FIGURES` → number, or head → :data:`LISTS` → structure → numbers.
        changes: parameter → what training added to it (DIFF).
    """

    site: str
    step: str
    round: int
    left_out: str = ""
    counts: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: Arrays = field(default_factory=dict)

    def facts(self) -> str:
        """All but the parameters, as JSON.

        Raises:
            DataError: something in it is neither a figure nor a known name.
        """
        if self.left_out and self.left_out not in REASONS:
            raise DataError(f"A reply may only give one of the known reasons, not {self.left_out!r}.")
        _check("counts", self.counts, {"trunk", *HEADS})
        numbers = list(self.counts.values())
        _check("metrics", self.metrics, {"all", *HEADS})
        for head, figures in self.metrics.items():
            _check(f"metrics of {head}", figures, FIGURES if head == "all" else FIGURES | LISTS)
            for name, value in figures.items():
                if name in LISTS:
                    _check(f"{name} of {head}", value, HEADS[head].classes)
                    numbers += [v for row in value.values() for v in row if v is not None]
                else:
                    numbers.append(value)
        if not all(isinstance(number, int | float) for number in numbers):
            raise DataError("What a reply says under its names must be numbers.")
        return json.dumps(
            {
                "site": self.site,
                "step": self.step,
                "round": self.round,
                "left_out": self.left_out,
                "counts": self.counts,
                "metrics": self.metrics,
            }
        )


def order_from(facts: str, parameters: dict[str, Arrays]) -> Order:
    """The inverse of :meth:`Order.facts`."""
    return Order(**json.loads(facts), parameters=parameters)


def reply_from(facts: str, changes: Arrays) -> Reply:
    """The inverse of :meth:`Reply.facts`.

    Raises:
        DataError: a site sent something that it may not.
        TypeError: the facts are not those of a reply.
    """
    if not isinstance(changes, dict) or not all(isinstance(c, np.ndarray) for c in changes.values()):
        raise DataError("The changes of a reply must be arrays.")
    raw = json.loads(facts)
    reply = Reply(**raw, changes=changes)
    reply.facts()
    return reply


def _check(what: str, found: Any, known: Collection[str]) -> None:
    """Refuse what is no dictionary with known names."""
    if not isinstance(found, dict) or not set(found) <= set(known):
        raise DataError(f"The {what} of a reply must have names among {', '.join(sorted(known))}.")
