"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from cardiac_ct_fm.errors import OutputError
from cardiac_ct_fm.files import atomic_folder, atomic_write, check_folder, write_json
from cardiac_ct_fm.tensor_files import write_model, write_tensors


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.is_file()}


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.nii.gz"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.endswith("a.nii.gz")
        temporary.write_text("whole")
        assert not target.exists()
    assert contents(target.parent) == {"a.nii.gz": "whole"}
    assert stat.S_IMODE(target.stat().st_mode) & 0o444 == 0o444


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="on the way"), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("on the way")
    assert contents(tmp_path) == {"a.json": "old"}


def test_a_refusal_inside_a_folder_names_the_place_that_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as refused, atomic_folder(tmp_path / "out" / "ct") as temporary:
        (temporary / "report.html").mkdir()
        with atomic_write(temporary / "report.html"):
            pass
    assert str(refused.value).startswith(f"{tmp_path / 'out' / 'ct' / 'report.html'} cannot be written: ")
    assert not (tmp_path / "out" / "ct").exists()


def test_a_folder_within_a_folder_is_replaced_file_by_file(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "case") as temporary:
            (temporary / "truth").mkdir()
            (temporary / "truth" / "a").write_text(text)
        (tmp_path / "case" / "truth" / "mine").write_text("stays")
    assert contents(tmp_path / "case" / "truth") == {"a": "new", "mine": "stays"}


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out" / "ct") as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "out" / "ct").exists()
    assert contents(tmp_path / "out" / "ct") == {"a": "1"} and len(list((tmp_path / "out").iterdir())) == 1


def test_results_replace_older_results_and_leave_other_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    for name in ("run.json", "a", "stale", "mine.txt"):
        (folder / name).write_text("old")
    with atomic_folder(folder, "run.json", ["run.json", "a", "stale"]) as temporary:
        (temporary / "a").write_text("new")
        (temporary / "run.json").write_text("new")
        assert set(contents(folder).values()) == {"old"}
    assert contents(folder) == {"run.json": "new", "a": "new", "mine.txt": "old"}
    assert list(tmp_path.iterdir()) == [folder]


def test_two_runs_that_end_at_once_do_not_mix_their_results(tmp_path: Path) -> None:
    names = [f"{i:02d}.txt" for i in range(40)]

    def run(tag: str) -> None:
        for _ in range(15):
            with atomic_folder(tmp_path / "out", marker="39.txt") as part:
                for name in names:
                    (part / name).write_text(tag)
            ended.wait(timeout=60)
            assert len({(tmp_path / "out" / name).read_text() for name in names}) == 1
            ended.wait(timeout=60)

    ended = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(run, tag) for tag in "abc"]:
            done.result()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_takes_results_and_a_broken_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(place: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    answer = nullcontext() if number == errno.ENOLCK else pytest.raises(OutputError, match=os.strerror(number))
    with answer, atomic_folder(tmp_path / "out") as part:
        (part / "a.txt").write_text("a")
    assert (tmp_path / "out").exists() == (number == errno.ENOLCK)


def test_a_name_that_is_no_unicode_is_written_as_an_escape(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller.nii.gz")
    write_json(tmp_path / "run.json", {"source": name})
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["source"] == name


def test_a_failure_leaves_the_older_folder_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    folder.mkdir()
    (folder / "run.json").write_text("old")
    with pytest.raises(ValueError, match="no number"), atomic_folder(folder, "run.json") as temporary:
        (temporary / "run.json").write_text("new")
        raise ValueError("no number")
    assert contents(folder) == {"run.json": "old"} and list(tmp_path.iterdir()) == [folder]


def test_what_the_file_system_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), atomic_write(tmp_path / "file" / "a.json"):
        pass
    with pytest.raises(OutputError, match="is a file, not a folder"), atomic_folder(tmp_path / "file"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"), atomic_write(tmp_path / "folder") as temporary:
        temporary.write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_json_takes_numpy_and_refuses_what_is_no_number(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"n": np.int64(3), "x": np.float32(0.5), "v": np.eye(2), "p": Path("b"), "µ": None})
    expected = {"n": 3, "x": 0.5, "v": [[1.0, 0.0], [0.0, 1.0]], "p": "b", "µ": None}
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == expected
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


WEIGHTS = {"a": torch.zeros(2)}


def for_one_alone(path: Path) -> None:
    """Put a file there whose permissions are those that ``tempfile`` gives."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    os.close(handle)
    Path(name).replace(path)


def a_file(path: Path) -> None:
    with atomic_write(path) as temporary:
        for_one_alone(temporary)


def a_folder(path: Path) -> None:
    with atomic_folder(path.parent) as temporary:
        for_one_alone(temporary / path.name)


def a_head(path: Path) -> None:
    path.parent.mkdir()
    write_tensors(path, WEIGHTS, torch.float32, {})


def a_model(path: Path) -> None:
    path.parent.mkdir()
    write_model(path.parent, WEIGHTS, torch.float32)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("write", [a_file, a_folder, a_head, a_model])
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_get_the_permissions_of_any_new_file(
    write: Callable[[Path], None], mask: int, mode: int, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "model.safetensors"
    with umask(mask):
        write(target)
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_folder_that_cannot_be_written_is_noticed_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match="file is a file, not a folder"):
            check_folder(bad)
    with pytest.raises(OutputError, match="/proc/nope cannot be written"):
        check_folder("/proc/nope")


def test_the_check_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for good in (".", "new/folder", tmp_path / "new"):
        check_folder(good)
    assert list(tmp_path.iterdir()) == []
