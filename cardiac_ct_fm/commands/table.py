"""One table of all scans of a run, read back from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

TABLE = "measurements.csv"


def write_table(folders: Mapping[str, Path], out: Path) -> Path:
    """Write ``measurements.csv``: a row per scan with complete results, three columns per measurement.

    Args:
        folders: name of the scan → folder of its results, done now or by an earlier run.
        out: folder of the table.

    Returns:
        The file.

    Raises:
        OutputError: the file system refuses.
    """
    from cardiac_ct_fm.planning import measurements_to_csv
    from cardiac_ct_fm.result import Measurement

    cases = {}
    for name, folder in folders.items():
        rows = json.loads((folder / "measurements.json").read_text(encoding="utf-8"))["measurements"]
        cases[name] = {row["name"]: Measurement(**row) for row in rows}
    path = out / TABLE
    measurements_to_csv(path, cases)
    return path
