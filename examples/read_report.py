"""Results of many scans as one table (CSV on stdout), read from the folders that predict wrote.

Needs the folder with the results of predict.

cardiac-ct-fm predict scans/ -o out && python examples/read_report.py out > measurements.csv
"""

import csv
import json
import sys
from pathlib import Path

WANTED = ("annulus_area_mm2", "annulus_perimeter_mm", "lca_height_mm", "rca_height_mm", "LV_volume_ml")


def read(folder: Path) -> dict[str, object]:
    """One row: what was measured, empty where it was not; a missing value is never a zero."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    rows = json.loads((folder / "measurements.json").read_text(encoding="utf-8"))["measurements"]
    points = json.loads((folder / "landmarks.json").read_text(encoding="utf-8"))["landmarks"]
    measured = {row["name"]: row for row in rows}
    found = sum(point["found"] for point in points)
    line: dict[str, object] = {"scan": folder.name, "landmarks": f"{found}/{len(points)}"}
    for name in WANTED:
        row = measured.get(name, {"value": None, "status": "not_computed"})
        line[name] = "" if row["value"] is None else round(row["value"], 2)
        line[f"{name} status"] = row["status"]
    return {**line, "warnings": " ".join(run["warnings"])}


def main(out: str) -> None:
    """Print the table; a folder without run.json is not complete and is left out."""
    rows = [read(marker.parent) for marker in sorted(Path(out).rglob("run.json"))]
    if not rows:
        sys.exit(f"{out} holds no complete results.")
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
