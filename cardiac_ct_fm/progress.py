"""What a waiting person sees on stderr: a progress bar on a terminal, one line per scan in a log file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from cardiac_ct_fm.batch import Outcome
    from cardiac_ct_fm.config import LookConfig
    from cardiac_ct_fm.inference import Progress as Callback
    from cardiac_ct_fm.scan_list import Case

_STAGES = {
    "fast": ("locate", "heart"),
    "standard": ("locate", "heart", "root", "detail"),
    "full": ("locate", "heart", "root", "detail"),
}
"""Looks by quality, in their order."""

_WORDS = {
    "locate": "finding the heart",
    "heart": "chambers and vessels",
    "root": "aortic root",
    "detail": "fine structures",
    "": "reading",
}

_log = logging.getLogger(__name__)


class ScanProgress:
    """A bar over all scans, moved on by the windows of each.

    Args:
        total: number of scans.
        quality: tells which looks a scan can have.
        silent: show nothing.
    """

    def __init__(self, total: int, quality: str, silent: bool = False) -> None:
        self._total = total
        self._stages = _STAGES[quality]
        self._done = 0
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # results on stdout stay there
            disable=silent or not self._console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("starting", total=float(total))
        self._silent = silent

    def __enter__(self) -> ScanProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away, so that the terminal is free for results."""
        self._bar.stop()

    def expect(self, looks: Iterable[LookConfig], heads: Collection[str] | None) -> None:
        """Count only the looks that will be taken.

        Args:
            looks: the model's.
            heads: those that are asked for; None asks for all.
        """
        taken = {k.name for k in looks if k.heads and (not heads or not set(heads).isdisjoint(k.heads))}
        self._stages = tuple(name for name in self._stages if name in {"locate", "heart"} | taken)

    def start(self, case: Case) -> Callback:
        """The callback for one scan's windows."""
        number = f"{self._done + 1}/{self._total} " if self._total > 1 else ""
        base = self._done

        def step(look: str, done: int, windows: int) -> None:
            share = (self._stages.index(look) + done / windows) / len(self._stages)
            text = f"{number}{case.name}: {_WORDS[look]}{f', {done} of {windows}' if windows > 1 else ''}"
            self._bar.update(self._task, description=text, completed=base + min(share, 0.99))

        self._bar.update(self._task, description=f"{number}{case.name}: reading", completed=float(base))
        self._done += 1
        return step

    def finish(self, outcome: Outcome) -> None:
        """Note a scan that is done, skipped or failed."""
        if self._total == 1:
            return  # it is told in full, or its error is raised
        text = {"done": f"done in {outcome.seconds:.1f} s", "skipped": "skipped, results are there"}
        line = f"{outcome.case.name}: {text.get(outcome.status) or one_line(outcome.error)}"
        if outcome.status == "failed":
            _log.error(line)
        elif not self._silent:
            _log.info(line)


def one_line(error: BaseException | None) -> str:
    """An error's text without line breaks; the kind of error in front where it was not foreseen."""
    from cardiac_ct_fm.errors import CardiacCTError

    text = " ".join(str(error).split())
    return text if isinstance(error, CardiacCTError) else f"unexpected {type(error).__name__}: {text}"


@contextmanager
def step_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for work that counts its own steps; nothing where stderr is no terminal.

    Yields:
        A function to be called with (what is being done, steps done, steps in all).
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=not shown) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(what: str, done: int, steps: int) -> None:
            bar.update(task, description=what, completed=float(done), total=float(max(steps, 1)))

        yield show
