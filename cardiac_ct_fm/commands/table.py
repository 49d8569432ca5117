"""One table of all scans that were predicted into a folder; later runs add their rows to it.

Runs at the same time, also on several machines where the shared file system grants it, take turns: who adds rows holds
``.measurements.csv.lock`` beside the table from reading it to putting the new one in its place.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardiac_ct_fm.result import Measurement

TABLE = "measurements.csv"

LOCK = f".{TABLE}.lock"
"""Name of the file that is there while a table is written."""

WAIT_S = 60.0
"""So long another run may hold the table (a choice of this project); to add a row to a thousand scans of 150
measurements took 0.1 s on one CPU core."""

_log = logging.getLogger(__name__)


def holds_table(out: Path) -> bool:
    """Whether what begins like a table of ours lies in a folder."""
    path = out / TABLE
    if not os.access(path, os.R_OK) or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline().startswith("case,")


def write_table(rows: Iterable[Mapping[str, Any]], out: Path) -> Path:
    """Write ``measurements.csv``: a row per scan with its status, and three columns per measurement.

    Rows of other scans that the table holds already stay, also those that another run is just adding.

    Args:
        rows: ``name``, ``folder`` (of the results), ``status`` and ``error`` of every scan.
        out: folder of the table.

    Returns:
        The file.

    Raises:
        DataError: there is another file of this name, or one that cannot be read.
        OutputError: the file system refuses, or another run holds the table for longer than :data:`WAIT_S`.
    """
    from cardiac_ct_fm.errors import DataError
    from cardiac_ct_fm.files import atomic_write
    from cardiac_ct_fm.planning import measurements_to_csv

    path = out / TABLE
    status: dict[str, dict[str, str]] = {}
    cases: dict[str, dict[str, Measurement]] = {}
    for row in rows:
        status[row["name"]] = {"case": row["name"], "status": row["status"], "reason": row["error"] or ""}
        if row["status"] != "failed":
            try:
                cases[row["name"]] = _measurements(Path(row["folder"]) / "measurements.json")
            except DataError as error:  # one scan's damaged results do not take the others' table away
                status[row["name"]] |= {"status": "failed", "reason": str(error)}
    with _in_turn(out), atomic_write(path) as temporary:
        if path.exists() and not holds_table(out):
            raise DataError(f"{path} is no table of measurements and is left alone; move it away and predict again.")
        table = _read(path) if path.exists() else {}
        measurements_to_csv(temporary, cases)
        measured = _read(temporary)
        table |= {name: {**cells, **measured.get(name, {})} for name, cells in status.items()}
        columns = list(dict.fromkeys(column for cells in table.values() for column in cells))
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            for cells in table.values():
                writer.writerow(cells.get(c, "not_measured" if c.endswith("_status") else "") for c in columns)
    return path


def _measurements(path: Path) -> dict[str, Measurement]:
    """What was measured in one scan.

    Raises:
        DataError: the file is gone or damaged.
    """
    from cardiac_ct_fm.errors import DataError
    from cardiac_ct_fm.result import Measurement

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["measurements"]
        return {row["name"]: Measurement(**row) for row in rows}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Predict this scan again, without --skip-existing."
        ) from error


def update_above(rows: Iterable[Mapping[str, Any]], out: Path) -> list[Path]:
    """Replace the rows of scans that were done again in tables further up, where a run over many scans listed them.

    Such a table can be somebody else's: one that cannot be read or written is warned of, and the scans are done.

    Args:
        rows: see :func:`write_table`; names are relative to ``out``.
        out: folder of the results; a table in it is left to :func:`write_table`.

    Returns:
        The tables that were changed.
    """
    from cardiac_ct_fm.errors import DataError, OutputError

    folder, changed = out.resolve(), []
    done = [row for row in rows if row["status"] == "done"]
    for place in folder.parents if done else ():
        try:
            listed = _read(place / TABLE) if holds_table(place) else {}
            below = folder.relative_to(place)
            renamed = [{**row, "name": (below / row["name"]).as_posix()} for row in done]
            again = [row for row in renamed if row["name"] in listed]
            if again:
                changed.append(write_table(again, place))
        except (DataError, OutputError) as error:
            _log.warning("Where %s lists these scans, their rows in it are old now: %s", place / TABLE, error)
    return changed


@contextmanager
def _in_turn(out: Path) -> Iterator[None]:
    """Wait for other runs that write the table in a folder, then keep them waiting until the block ends.

    The lock is a file that its holder creates and removes. The file system has to let only one process create a file
    (``O_CREAT | O_EXCL``) and show that at once to all machines that share the folder; where it does not, runs can
    write at the same time. The lock holds its process and machine: what a killed process left is taken over by the
    next run on the same machine; runs on other machines wait for it in vain and say so.

    Raises:
        OutputError: another run does not come to its end, or the file system refuses.
    """
    from filelock import SoftFileLock, Timeout

    from cardiac_ct_fm.errors import OutputError

    lock = SoftFileLock(out / LOCK, timeout=WAIT_S)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{out / TABLE} was not written: another run holds {out / LOCK} for more than {WAIT_S:g} s. When no other "
            "run writes into this folder, remove that file; then do the same again (predict with --skip-existing "
            "writes the table alone)."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{out / TABLE} cannot be written: {error.strerror or error}. Choose another folder or free some space."
        ) from error
    try:
        yield
    finally:
        lock.release()


def namesakes(name: str, out: Path) -> list[str]:
    """Scans of that name in deeper folders that the table in ``out`` lists, where it does not list the scan itself."""
    listed = _read(out / TABLE) if holds_table(out) else {}
    return [] if name in listed else [other for other in listed if other.endswith(f"/{name}")]


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Scan → its cells by column.

    Raises:
        DataError: what is in the file is no such table.
    """
    from cardiac_ct_fm.errors import DataError

    try:
        with path.open(encoding="utf-8", newline="") as stream:
            table = {cells["case"]: cells for cells in csv.DictReader(stream, strict=True)}
        if any(None in cells for cells in table.values()):
            raise ValueError("a row has more cells than there are columns")
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a table of measurements ({error}); mend it, or move it away and predict again."
        ) from error
    return table
