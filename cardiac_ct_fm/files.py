"""Files written whole or not at all: a temporary neighbour first, then one rename."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from cardiac_ct_fm.errors import OutputError

UNFINISHED = ".part-"
"""How the names of files that are being written begin; a killed process can leave them behind."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems answer that know no locks (flock(2))."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with the same ending, that replaces it when the block ends well.

    Folders on the way are made. When the block raises, nothing is left behind and an older file stays.

    Raises:
        OutputError: the file system refuses (no permission, no space, a folder of that name).
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _neighbour(target)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    try:
        yield temporary
        _permit([temporary], mode)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, marker: str | None = None, owned: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary folder beside ``path`` whose files move there together when the block ends well.

    Where ``path`` is there already, other people's files in it stay; only files of the same names and those named in
    ``owned`` are replaced. When the block raises, ``path`` stays as it was.

    Args:
        path: the folder of results.
        marker: a file that is taken away first and put back last: where it is, the folder is complete.
        owned: names that an earlier run may have left and that must not survive beside newer results.

    Raises:
        OutputError: the file system refuses, or ``path`` is a file.
    """
    target = Path(path)
    _refuse_file(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _neighbour(target)
        temporary.mkdir()
        mode = temporary.stat().st_mode
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    try:
        yield temporary
        _permit((p for p in temporary.rglob("*") if p.is_file()), mode)
        with _alone(target.parent):
            if not target.exists():
                temporary.replace(target)
            else:
                _move_in(temporary, target, marker, owned)
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(path: str | Path) -> None:
    """See before a long computation whether results can be written into a folder; nothing is left behind.

    Args:
        path: the folder, which need not be there yet.

    Raises:
        OutputError: it, or what should hold it, is a file, or the file system refuses.
    """
    target = Path(path)
    try:
        there = next(p for p in (target, *target.absolute().parents) if p.exists())
        _refuse_file(there)
        probe = _neighbour(there / "probe")
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OutputError(_refused(target, error)) from error


def _refuse_file(folder: Path) -> None:
    """Raise where a file lies in place of a folder."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder; give a folder to write the results into.")


def _permit(files: Iterable[Path], mode: int) -> None:
    """Give files the permissions that new ones have here; safetensors and tempfile make theirs for one person alone.

    Args:
        files: those that were written.
        mode: of a file or folder that was made with the process's umask.
    """
    for file in files:
        file.chmod(mode & 0o666)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While this lasts, no other run moves its results into the folder: two would mix their files.

    Unlike the lock of a table (``commands/table.py``), which is a file and serves machines without a common lock, this
    one ends with its process, so that no killed run costs another its results. Nothing is held on Windows, on file
    systems without locks and in folders that may be written but not listed.
    """
    try:
        fcntl = import_module("fcntl")
        place = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        yield
        return
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(place)


def _move_in(temporary: Path, target: Path, marker: str | None, owned: Sequence[str]) -> None:
    """Replace the results in ``target`` by those in ``temporary``, folders file by file; ``marker`` comes last."""
    if marker is not None:
        (target / marker).unlink(missing_ok=True)
    fresh = sorted(temporary.iterdir(), key=lambda p: p.name == marker)
    for name in set(owned) - {p.name for p in fresh}:
        (target / name).unlink(missing_ok=True)
    for file in fresh:
        place = target / file.name
        if file.is_dir() and place.is_dir():
            _move_in(file, place, None, ())
        else:
            file.replace(place)


def write_json(path: str | Path, content: Any) -> None:
    """Write plain data (numpy scalars, arrays and paths allowed) as indented JSON, whole or not at all.

    Raises:
        OutputError: the file system refuses.
        ValueError: a number is not finite; what is unknown must be ``None``.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False, default=_plain)
    with atomic_write(path) as temporary:
        # A file name that is not UTF-8 has halves of letters in Python, which JSON can write as an escape.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def gzip_reader(path: Path) -> IO[bytes]:
    """A stream of the unpacked file: isal's, which is faster, where it is installed; else the standard library's."""
    try:
        return cast("IO[bytes]", import_module("isal.igzip").open(path, "rb"))
    except ImportError:
        return cast("IO[bytes]", gzip.open(path, "rb"))


def gzip_errors() -> tuple[type[Exception], ...]:
    """What a reader of :func:`gzip_reader` raises on a damaged file."""
    known: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    try:
        return (*known, import_module("isal.isal_zlib").error)
    except ImportError:
        return known


def gzip_writer(file: IO[bytes]) -> IO[bytes]:
    """A stream that packs into ``file``, at level 1 and without time stamp, so that equal content gives equal bytes."""
    try:
        return cast("IO[bytes]", import_module("isal.igzip").IGzipFile("", "wb", 1, file, mtime=0))
    except ImportError:
        return cast("IO[bytes]", gzip.GzipFile("", "wb", 1, file, mtime=0))


def _plain(value: Any) -> Any:
    """JSON's counterpart of a numpy value or a path."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON counterpart: {value!r}")


def _neighbour(target: Path) -> Path:
    """A hidden name beside ``target`` that nobody else uses, with the same ending."""
    return target.with_name(f"{UNFINISHED}{secrets.token_hex(6)}-{target.name}")


def _refused(target: Path, error: OSError) -> str:
    shown = Path(*(re.sub(rf"^{re.escape(UNFINISHED)}[0-9a-f]{{12}}-", "", part) for part in target.parts))
    return f"{shown} cannot be written: {error.strerror or error}. Choose another folder or free some space."
