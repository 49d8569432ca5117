"""A bounded cache, on disk, of what a frozen trunk says of each window: epochs after the first cost the head alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.training.windows import Window


class FeatureCache:
    """Features and targets of windows by key; what does not fit any more is computed again each time.

    Features are kept in half precision, and are rounded to it when they are not kept, so that the size of the cache
    changes no result. They stay on disk until their voxels are used.

    Args:
        folder: where the files live; what an interrupted training left there is used.
        limit_bytes: files may take this much in all.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.used_bytes = sum(file.stat().st_size for file in folder.glob("*.npy")) if folder.exists() else 0

    def get(self, key: str, compute: Callable[[], Window]) -> Window:
        """The window's features, in half precision, in place of its image.

        Args:
            key: a file name.
            compute: makes the window with the trunk's features (C, X, Y, Z) as its image.

        Raises:
            DataError: a file of the cache is damaged.
            OutputError: the file system refuses.
        """
        features, target = self.folder / f"{key}.features.npy", self.folder / f"{key}.target.npy"
        if target.exists():
            return Window(_read(features), _read(target))
        window = compute()
        rounded = window.image.half().cpu()
        size = rounded.nbytes + window.target.nbytes
        if self.used_bytes + size <= self.limit_bytes:
            _write(features, rounded)
            _write(target, window.target.cpu())  # last: where it is, both are
            self.used_bytes += size
        return Window(rounded, window.target)


def _write(path: Path, tensor: Tensor) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, tensor.contiguous().numpy(), allow_pickle=False)


def _read(path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and it is made again.") from error
