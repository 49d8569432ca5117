"""What crosses the wire: orders to the sites and their replies. Parameters, counts and metrics; nothing else exists.

A reply's only text is the site's own name, the step's name and one of :data:`REASONS`, so that no path, subject name or
error text of a hospital can slip into it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

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

METRICS = frozenset({"loss", "scans", "pseudo", "kept", "dropped", "seconds", "points", "dice", "steps"})
"""Names that a site's figures may have, at the top level, below a head's name."""


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
        metrics: head → :data:`METRICS` → figure or list of figures.
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
        for head, figures in self.metrics.items():
            for name, value in figures.items():
                if name not in METRICS or not _numeric(value):
                    raise DataError(f"The figure {head}.{name} is not one that may leave a site.")
        if not _numeric(list(self.counts.values())):
            raise DataError("The counts of a reply must be numbers.")
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
    """
    raw = json.loads(facts)
    reply = Reply(**raw, changes=changes)
    reply.facts()
    return reply


def _numeric(value: Any) -> bool:
    """Whether a value is a number, None, or lists and dictionaries of them under names of structures."""
    if isinstance(value, dict):
        return all(str(k).isalnum() and len(str(k)) < 16 and _numeric(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_numeric(v) for v in value)
    return value is None or isinstance(value, bool | int | float)
