"""Runs the command line inside the test process, with what it prints and its exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from cardiac_ct_fm.cli import main
from cardiac_ct_fm.process import ALLOCATOR_VARIABLE


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


def run(*arguments: object) -> Answer:
    """``cardiac-ct-fm ARGUMENTS``, without touching the allocator and the signals of the test process."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    os.environ[ALLOCATOR_VARIABLE] = "system"
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in arguments])
    finally:
        signal.signal(signal.SIGTERM, handler)
        del os.environ[ALLOCATOR_VARIABLE]
    return Answer(code, out.getvalue(), err.getvalue())


def files_in(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []
