"""A bounded cache, on disk, of what a frozen trunk says of each window: epochs after the first cost the head alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.training.windows import Window


class FeatureCache:
    """Features and targets of windows by key; what does not fit any more is computed again each time.

    Features are kept in half precision, each map at its own resolution, and are rounded to it when they are not kept,
    so that the size of the cache changes no result. They stay on disk until their voxels are used. With the bundled
    transformer a window of 64 voxels takes 2.8 MB for hidden layers and 12.8 MB for a last layer.

    Args:
        folder: where the files live; what an interrupted training left there is used.
        limit_bytes: files may take this much in all.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.used_bytes = sum(file.stat().st_size for file in folder.glob("*.npy")) if folder.exists() else 0

    def get(self, key: str, compute: Callable[[], Window]) -> Window:
        """The window with the trunk's features, in half precision, in place of its image.

        Args:
            key: a file name.
            compute: makes the window with the trunk's features.

        Raises:
            DataError: a file of the cache is damaged.
            OutputError: the file system refuses.
        """
        target = self.folder / f"{key}.labels.npy"
        if target.exists():
            finest, *wider = (_read(path) for path in self._maps(key))
            return Window(finest, _read(target), tuple(wider))
        window = compute()
        rounded = [part.half().cpu().contiguous() for part in (window.image, *window.wider)]  # as it is read back
        size = sum(part.nbytes for part in rounded) + window.target.nbytes
        if self.used_bytes + size <= self.limit_bytes:
            for number, part in enumerate(rounded):
                _write(self._map(key, number), part)
            _write(target, window.target.cpu())  # last: where it is, all are
            self.used_bytes += size
        return Window(rounded[0], window.target, tuple(rounded[1:]))

    def _map(self, key: str, number: int) -> Path:
        """A map's file; number 0 is the finest."""
        return self.folder / f"{key}.map{number}.npy"

    def _maps(self, key: str) -> Iterator[Path]:
        """The files of a window's maps, at least the finest's."""
        yield self._map(key, 0)
        yield from takewhile(Path.exists, (self._map(key, number) for number in count(1)))


def _write(path: Path, tensor: Tensor) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, tensor.contiguous().numpy(), allow_pickle=False)


def _read(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and it is made again.") from error
