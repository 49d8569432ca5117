"""Which cohort draws the patients: the same sources and heart shapes draw the same ones. No torch."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from cardiac_ct_fm.weights import sha256_of

_SOURCES = Path(__file__).parent
_SHAPES = _SOURCES.parent / "assets" / "cohort"


@cache
def cohort_sha256() -> str:
    """Digest of the cohort's modules and heart shapes, by which scans of an older cohort are told from today's.

    It also changes with a comment: scores and kept scans are then made anew, once too often rather than mixed.
    """
    files = [*sorted(_SOURCES.glob("*.py")), *sorted(_SHAPES.glob("*.npz"))]
    lines = [f"{file.name} {sha256_of(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
