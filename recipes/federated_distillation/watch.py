"""Progress for people: ``history.csv``, a line on the terminal per event, TensorBoard per site, a plot at the end."""

from __future__ import annotations

import csv
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes.federated_distillation.messages import REASONS
from recipes.federated_distillation.scoring import summary

COLUMNS = ("time", "step", "round", "site", "part", "measure", "value")


class History:
    """Writes what happens; every row is flushed, so that a killed server loses none.

    Args:
        folder: ``history.csv`` and ``tensorboard/<site>/`` are made in it.
        say: gets a line for people per event.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.say = folder, say
        self._boards: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def figures(
        self,
        step: str,
        number: int,
        site: str,
        metrics: Mapping[str, Mapping[str, Any]],
        counts: Mapping[str, float],
        tested: str = "",
    ) -> None:
        """A site's figures of one round.

        Args:
            step: name of the step.
            number: of the round.
            site: whose figures.
            metrics: head → kind → figure, or structure → errors.
            counts: part → scans.
            tested: ``local_`` or ``global_`` network that the errors are of, where both may be tested.
        """
        rows: list[tuple[str, str, float | int | None]] = [(part, "scans", value) for part, value in counts.items()]
        for part, kinds in metrics.items():
            for kind, value in kinds.items():
                if isinstance(value, dict):
                    rows += [
                        (f"{part}.{name}", f"{tested}median_{kind}", summary(v, kind).get("median"))
                        for name, v in value.items()
                    ]
                else:
                    rows.append((part, kind, value))
        self._rows([(step, number, site, *row) for row in rows])
        losses = ", ".join(f"{p} {k['loss']:.3f}" for p, k in metrics.items() if "loss" in k)
        self.say(f"{step}  round {number + 1}  {site}" + (f"  loss {losses}" if losses else "  done"))

    def left_out(self, step: str, number: int, site: str, reason: str) -> None:
        """A site that a round goes on without."""
        self._rows([(step, number, site, "all", f"left out: {reason}", None)])
        self.say(f"{step}  round {number + 1}  {site} is left out: {REASONS[reason]}")

    def round_done(self, step: str, number: int, rounds: int, sites: list[str]) -> None:
        """A round whose breakpoint is written."""
        self._rows([(step, number, "server", "all", "sites", len(sites))])
        self.say(f"{step}  round {number + 1}/{rounds} finished with {', '.join(sites)}")

    def close(self) -> None:
        """Close the TensorBoard files."""
        for board in self._boards.values():
            board.close()
        self._boards.clear()

    def _rows(self, rows: list[tuple[Any, ...]]) -> None:
        path = self.folder / "history.csv"
        new = not path.exists()
        now = round(time.time(), 1)
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            writer.writerows([(now, *("" if v is None else v for v in row)) for row in rows])
        for step, number, site, part, measure, value in rows:
            board = self._board(site) if isinstance(value, int | float) else None
            if board is not None:
                board.add_scalar(f"{step}/{part}/{measure}", value, number)

    def _board(self, site: str) -> Any:
        """The site's TensorBoard writer; None where TensorBoard is not installed."""
        if importlib.util.find_spec("tensorboard") is None:
            return None
        if site not in self._boards:
            from torch.utils.tensorboard import SummaryWriter

            self._boards[site] = SummaryWriter(str(self.folder / "tensorboard" / site))
        return self._boards[site]


def follow(path: Path, alive: Callable[[], bool], pause: float = 0.5) -> Iterator[dict[str, str]]:
    """Rows of a ``history.csv`` as they are written, until ``alive`` says no and all are read.

    Args:
        path: may not exist yet.
        alive: whether more can come.
        pause: seconds between looks.
    """
    place, rest, last = path.stat().st_size if path.exists() else 0, "", False
    while True:
        last = not alive()
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                file.seek(place)
                rest += file.read()
                place = file.tell()
        *lines, rest = rest.split("\n")
        for values in csv.reader(line.strip() for line in lines):
            if len(values) == len(COLUMNS) and values[0] != "time":
                yield dict(zip(COLUMNS, values, strict=True))
        if last:
            return
        time.sleep(pause)


def line(row: Mapping[str, str]) -> str | None:
    """What a row of the history says to people; None for figures that need no line."""
    where = f"{row['step']}  round {int(row['round']) + 1}"
    if row["measure"].startswith("left out: "):
        return f"{where}  {row['site']} is left out: {REASONS[row['measure'].removeprefix('left out: ')]}"
    if row["measure"] == "sites":
        return f"{where}  finished with {row['value']} sites"
    if row["measure"] in ("loss", "kept", "dropped"):
        return f"{where}  {row['site']}  {row['part']} {row['measure']} {float(row['value']):g}"
    return None


def plot(folder: Path) -> Path | None:
    """Losses over rounds, one panel per training step, one line per head and site: ``history.png``.

    Returns:
        The picture, or None where the history holds no loss.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["measure"] == "loss"]
    steps = list(dict.fromkeys(r["step"] for r in rows))
    if not steps:
        return None
    figure, axes = plt.subplots(1, len(steps), figsize=(4 * len(steps), 3.2), squeeze=False, layout="constrained")
    for axis, step in zip(axes[0], steps, strict=True):
        own = [r for r in rows if r["step"] == step]
        for site, part in dict.fromkeys((r["site"], r["part"]) for r in own):
            points = [(int(r["round"]) + 1, float(r["value"])) for r in own if (r["site"], r["part"]) == (site, part)]
            axis.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=f"{part}, {site}")
        axis.set(title=step, xlabel="round", ylabel="Dice + CE loss")
        axis.legend(fontsize=6)
    path = folder / "history.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
