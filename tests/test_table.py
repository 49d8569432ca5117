"""``measurements.csv``: one table for all scans that were ever predicted into a folder."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from cardiac_ct_fm.commands.table import LOCK, TABLE, holds_table, namesakes, update_above, write_table
from cardiac_ct_fm.errors import DataError, OutputError
from cardiac_ct_fm.result import Measurement


def done(out: Path, name: str, **values: float | None) -> dict[str, Any]:
    """A scan's row after its results were written."""
    rows = [Measurement(k, v, "mm", "ok" if v is not None else "not_found").to_dict() for k, v in values.items()]
    (out / name).mkdir(parents=True, exist_ok=True)
    (out / name / "measurements.json").write_text(json.dumps({"measurements": rows}))
    return {"name": name, "folder": str(out / name), "status": "done", "error": None}


def failed(out: Path, name: str) -> dict[str, Any]:
    return {"name": name, "folder": str(out / name), "status": "failed", "error": "is not a CT, but a photo"}


def table_in(out: Path) -> dict[str, dict[str, str]]:
    with (out / TABLE).open(newline="", encoding="utf-8") as stream:
        return {line["case"]: line for line in csv.DictReader(stream)}


def test_a_later_run_adds_its_scans_and_replaces_those_it_did_again(tmp_path: Path) -> None:
    write_table([done(tmp_path, "a", lca_mm=1.5), done(tmp_path, "b", lca_mm=2), failed(tmp_path, "c")], tmp_path)
    write_table([done(tmp_path, "b", lca_mm=3, rca_mm=None), done(tmp_path, "c", lca_mm=4)], tmp_path)
    table = table_in(tmp_path)
    assert {name: line["lca_mm"] for name, line in table.items()} == {"a": "1.5", "b": "3", "c": "4"}
    assert (table["c"]["status"], table["c"]["reason"]) == ("done", "")
    assert [line["rca_mm_status"] for line in table.values()] == ["not_measured", "not_found", "not_measured"]
    assert {line["rca_mm"] for line in table.values()} == {""}


def test_a_failed_scan_has_a_row_with_its_reason_and_no_number(tmp_path: Path) -> None:
    write_table([done(tmp_path, "a", lca_mm=1.5), failed(tmp_path, "c")], tmp_path)
    line = table_in(tmp_path)["c"]
    assert (line["status"], line["reason"]) == ("failed", "is not a CT, but a photo")
    assert (line["lca_mm"], line["lca_mm_sd"], line["lca_mm_status"]) == ("", "", "not_measured")


@pytest.mark.parametrize("damaged", [None, "{", '{"measurements": [{"x": 1}]}'])
def test_results_that_cannot_be_read_cost_their_own_row_alone(tmp_path: Path, damaged: str | None) -> None:
    rows = [done(tmp_path, "a", annulus_area_mm2=450.0), done(tmp_path, "b", annulus_area_mm2=460.0)]
    rows[1]["status"] = "skipped"
    file = tmp_path / "b" / "measurements.json"
    file.unlink() if damaged is None else file.write_text(damaged)
    write_table(rows, tmp_path)
    table = table_in(tmp_path)
    assert (table["a"]["status"], table["b"]["status"]) == ("done", "failed")
    assert "b/measurements.json cannot be read" in table["b"]["reason"] and "--skip-existing" in table["b"]["reason"]


def test_a_scan_that_is_done_again_below_is_replaced_in_the_tables_above_that_list_it(tmp_path: Path) -> None:
    site, out = tmp_path / "site", tmp_path / "site" / "p1"
    write_table([done(site, "p1/ct", lca_mm=1), done(site, "p2/ct", lca_mm=2)], site)
    write_table([done(tmp_path, "other", lca_mm=5)], tmp_path)
    before = (tmp_path / TABLE).read_bytes()
    assert update_above([done(out, "ct", lca_mm=3), done(out, "late", lca_mm=4), failed(out, "ct")], out) == [
        site / TABLE
    ]
    assert {name: line["lca_mm"] for name, line in table_in(site).items()} == {"p1/ct": "3", "p2/ct": "2"}
    assert (tmp_path / TABLE).read_bytes() == before
    assert not (out / TABLE).exists()


def test_a_scan_that_may_be_listed_under_a_longer_name_is_known(tmp_path: Path) -> None:
    assert namesakes("ct", tmp_path) == []
    write_table([done(tmp_path, name, lca_mm=1) for name in ("p1/ct", "p2/ct", "p3/direct")], tmp_path)
    assert namesakes("ct", tmp_path) == ["p1/ct", "p2/ct"]
    write_table([done(tmp_path, "ct", lca_mm=1)], tmp_path)
    assert namesakes("ct", tmp_path) == []


def test_a_scan_that_failed_below_keeps_its_row_above(tmp_path: Path) -> None:
    write_table([done(tmp_path, "p1/ct", lca_mm=1)], tmp_path)
    assert update_above([failed(tmp_path / "p1", "ct")], tmp_path / "p1") == []
    assert table_in(tmp_path)["p1/ct"]["lca_mm"] == "1"


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("scan,area\na,1\n")
    assert not holds_table(tmp_path)
    with pytest.raises(DataError, match="left alone"):
        write_table([done(tmp_path, "a", lca_mm=1)], tmp_path)
    assert (tmp_path / TABLE).read_text() == "scan,area\na,1\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("case,name\nx,Müller\n".encode("cp1252"), "can't decode"),
        (b'case,name\nx,"' + b"y" * 200_000 + b'"\n', "field larger than field limit"),
        (b"case,name\nx,y,z\n", "more cells than there are columns"),
        (b'case,name\nx,"y\n', "unexpected end of data"),
    ],
)
def test_a_table_above_that_cannot_be_read_stays_and_is_told(
    content: bytes, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / TABLE).write_bytes(content)
    out = tmp_path / "p1"
    write_table([done(out, "ct", lca_mm=1)], out)
    assert update_above([done(out, "ct", lca_mm=3)], out) == []
    assert f"Where {tmp_path / TABLE} lists these scans, their rows in it are old now" in caplog.text
    assert reason in caplog.text
    assert (tmp_path / TABLE).read_bytes() == content
    with pytest.raises(DataError, match="mend it, or move it away"):
        write_table([done(tmp_path, "ct", lca_mm=3)], tmp_path)
    assert (tmp_path / TABLE).read_bytes() == content


def test_a_table_above_that_cannot_be_written_fails_no_scan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    many = {f"point{i}_mm": float(i) for i in range(2000)}
    write_table([done(tmp_path, "p1/ct", **many)], tmp_path)
    before, row = (tmp_path / TABLE).read_bytes(), done(tmp_path / "p1", "ct", **many)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        assert update_above([row], tmp_path / "p1") == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"Where {tmp_path / TABLE} lists these scans, their rows in it are old now" in caplog.text
    assert (tmp_path / TABLE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [TABLE]


RUNS, SCANS = 4, 25
"""Processes at the same time, and scans of each. Without turns, each of ten tries lost rows."""


def at_once(how: str, out: Path, scans: list[list[str]]) -> None:
    """Processes that add rows to the table in a folder, all started together."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), *sys.path])}
    command = [sys.executable, str(here / "table_writer.py"), how, str(out)]
    runs = [
        subprocess.Popen([*command, *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for names in scans
    ]
    try:
        for run in runs:
            assert run.stdout is not None and run.stdout.readline() == "ready\n"
        for run in runs:
            assert run.stdin is not None
            run.stdin.write("go\n")
            run.stdin.flush()
        assert [run.wait(timeout=120) for run in runs] == [0] * len(runs)
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def files_beside(table: Path) -> list[str]:
    return [path.name for path in table.iterdir() if path.is_file()]


def test_runs_at_the_same_time_lose_no_row_of_each_other(tmp_path: Path) -> None:
    scans = [[f"run{r}-{i}" for i in range(SCANS)] for r in range(RUNS)]
    every = {f"run{r}-{i}": float(r * SCANS + i) for r in range(RUNS) for i in range(SCANS)}
    for name, value in every.items():
        done(tmp_path, name, lca_mm=value)
    at_once("write", tmp_path, scans)
    assert {name: float(line["lca_mm"]) for name, line in table_in(tmp_path).items()} == every
    assert files_beside(tmp_path) == [TABLE]


def test_runs_at_the_same_time_in_folders_below_lose_no_row_in_the_table_above(tmp_path: Path) -> None:
    scans = [[f"patient{r}-{i}/ct" for i in range(SCANS)] for r in range(RUNS)]
    every = [name for names in scans for name in names]
    write_table([done(tmp_path, name, lca_mm=1) for name in every], tmp_path)
    for name in every:
        done(tmp_path, name, lca_mm=2)
    at_once("above", tmp_path, scans)
    assert {name: line["lca_mm"] for name, line in table_in(tmp_path).items()} == dict.fromkeys(every, "2")
    assert files_beside(tmp_path) == [TABLE]


def test_a_table_that_another_run_does_not_let_go_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cardiac_ct_fm.commands.table.WAIT_S", 0.1)
    write_table([done(tmp_path, "p1/ct", lca_mm=1)], tmp_path)
    before, row = (tmp_path / TABLE).read_bytes(), done(tmp_path, "p1/ct", lca_mm=2)
    (tmp_path / LOCK).touch()
    with pytest.raises(OutputError, match=r"another run holds .*\.lock for more than 0\.1 s.*remove that file"):
        write_table([row], tmp_path)
    assert update_above([{**row, "name": "ct"}], tmp_path / "p1") == []
    assert f"Where {tmp_path / TABLE} lists these scans, their rows in it are old now" in caplog.text
    assert (tmp_path / TABLE).read_bytes() == before
    (tmp_path / LOCK).unlink()
    write_table([row], tmp_path)
    assert table_in(tmp_path)["p1/ct"]["lca_mm"] == "2"
    assert files_beside(tmp_path) == [TABLE]


HOLDER = """
import time
from pathlib import Path
from cardiac_ct_fm.commands.table import _in_turn

with _in_turn(Path.cwd()):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    write_table([done(tmp_path, "a", lca_mm=1)], tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    command = [sys.executable, "-c", HOLDER]
    killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert killed.stdout is not None and killed.stdout.readline() == "held\n"
    finally:
        killed.kill()
        killed.communicate()
    assert str(killed.pid) in (tmp_path / LOCK).read_text().splitlines(), "what it left says whose it is"
    write_table([done(tmp_path, "b", lca_mm=2)], tmp_path)
    assert set(table_in(tmp_path)) == {"a", "b"}
    assert files_beside(tmp_path) == [TABLE]


def test_the_versions_of_filelock_that_are_allowed_can_tell_a_dead_holder() -> None:
    """3.22 is the first that writes process and machine into the lock (the constant for older ones in its source)."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (lowest,) = (need.removeprefix("filelock>=") for need in needs if need.startswith("filelock"))
    assert tuple(map(int, lowest.split("."))) >= (3, 22)


def test_a_run_that_fails_at_the_table_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("scan,area\na,1\n")
    with pytest.raises(DataError, match="left alone"):
        write_table([done(tmp_path, "a", lca_mm=1)], tmp_path)
    assert files_beside(tmp_path) == [TABLE]
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        write_table([failed(tmp_path, "a")], tmp_path / TABLE / "below")
