"""Files written whole or not at all: a temporary neighbour first, then one rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cardiac_ct_fm.errors import OutputError


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
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".part-{target.name}", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place, as a whole, when the block ends well.

    A folder that is already there is replaced only then; when the block raises, it stays as it was.

    Raises:
        OutputError: the file system refuses, or ``path`` is a file.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; give a folder to write the results into.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _swap(temporary, target)
    except OSError as error:
        raise OutputError(_refused(target, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path) -> None:
    """Put ``temporary`` where ``target`` is; the old folder comes back if that fails."""
    if not target.exists():
        temporary.replace(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent)) / target.name
    target.replace(old)
    try:
        temporary.replace(target)
    except OSError:
        old.replace(target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _umask() -> int:
    """The process's file mode mask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _refused(target: Path, error: OSError) -> str:
    return f"{target} cannot be written: {error.strerror or error}. Choose another folder or free some space."
