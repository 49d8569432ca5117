"""A run that adds scans to a table, one at a time: HOW FOLDER NAME…; it says "ready" and begins with a line on stdin.

HOW is ``write`` (into the table of the folder) or ``above`` (scans done again below it, each in a folder of its own).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cardiac_ct_fm.planning
import cardiac_ct_fm.result  # noqa: F401 - imported before the start, so that all runs write at the same time
from cardiac_ct_fm.commands.table import update_above, write_table


def main() -> None:
    how, out, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    print("ready", flush=True)
    sys.stdin.readline()
    for name in names:
        row = {"folder": str(out / name), "status": "done", "error": None}
        if how == "write":
            write_table([{**row, "name": name}], out)
        else:
            folder, scan = name.split("/")
            assert update_above([{**row, "name": scan}], out / folder) == [out.resolve() / "measurements.csv"]


if __name__ == "__main__":
    main()
