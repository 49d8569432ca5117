"""Label maps out and in: ``.nii.gz`` on the scan's own grid, with the labels' names in the header.

Written directly (header, then one compressed stream at level 1), which is several times faster than the general
NIfTI writer. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import atomic_write, gzip_writer
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.volume_io import Volume

_INTENT_LABEL = 1002
"""NIFTI_INTENT_LABEL of nifti1.h: values are labels."""

_SCANNER_COORDINATES = 1
"""NIFTI_XFORM_SCANNER_ANAT of nifti1.h."""

_COMMENT_EXTENSION = 6
"""NIFTI_ECODE_COMMENT of nifti1.h: plain text; ours is the JSON of ``segmentation.json``."""


def save_label_map(
    path: str | Path, labels: npt.NDArray[np.uint8], where: Volume | Grid, names: Mapping[int, str]
) -> None:
    """Write a label map on the grid of the scan that it belongs to.

    Args:
        path: ends in ``.nii.gz``.
        labels: (X, Y, Z) uint8, 0 is background.
        where: the scan, or its grid.
        names: value → name of every label that can occur.

    Raises:
        DataError: the shape is not the grid's, or a value has no name.
        OutputError: the file system refuses.
    """
    import nibabel as nib

    grid = where.grid if isinstance(where, Volume) else where
    if labels.shape != grid.shape or labels.dtype != np.uint8:
        raise DataError(f"A label map must be uint8 of shape {grid.shape}; this is {labels.dtype} {labels.shape}.")
    unnamed = [v for v in range(1, int(labels.max()) + 1) if v not in names and bool((labels == v).any())]
    if unnamed:
        raise DataError(f"The label map holds the values {unnamed}, which have no name; name them or remove them.")
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype(np.uint8)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, _SCANNER_COORDINATES)
    header["pixdim"][1:4] = grid.spacing
    if _is_rotation(grid):
        header.set_qform(grid.affine, _SCANNER_COORDINATES)
    header["intent_code"] = _INTENT_LABEL
    header["descrip"] = b"cardiac-ct-fm labels (names: extension)"
    text = json.dumps(label_table(names), ensure_ascii=True).encode("ascii")
    header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT_EXTENSION, text))
    with atomic_write(path) as temporary, temporary.open("wb") as file, gzip_writer(file) as stream:
        header.write_to(stream)
        stream.write(np.ascontiguousarray(labels.T).data.cast("B"))


def load_label_map(path: str | Path) -> tuple[npt.NDArray[np.uint8], Grid, dict[int, str]]:
    """Read a label map that :func:`save_label_map` wrote, or anybody's integer NIfTI.

    Returns:
        The labels (X, Y, Z) uint8, their grid, and value → name (empty where the file does not tell).

    Raises:
        ImageError: the file cannot be read.
        DataError: its values are not whole numbers in 0…255.
    """
    import nibabel as nib

    from cardiac_ct_fm.volume_io import load_volume

    volume = load_volume(path, check=False)
    data = volume.data
    labels = data.astype(np.uint8)
    if not np.array_equal(labels, data):
        raise DataError(f"{path} is no label map: its values are not whole numbers in 0…255.")
    names: dict[int, str] = {}
    for extension in nib.load(path).header.extensions:
        if extension.get_code() == _COMMENT_EXTENSION:
            names |= _names_from(extension.get_content())
    return labels, volume.grid, names


def label_table(names: Mapping[int, str]) -> dict[str, dict[str, str]]:
    """The content of ``segmentation.json``: ``{"labels": {"1": "Myo", …}}``."""
    return {"labels": {str(value): name for value, name in sorted(names.items())}}


def _names_from(content: Any) -> dict[int, str]:
    """Names in a comment extension, if it is one of ours; anybody else's comment is not an error."""
    try:
        table = json.loads(content if isinstance(content, str) else bytes(content).rstrip(b"\0"))["labels"]
        return {int(value): str(name) for value, name in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_rotation(grid: Grid) -> bool:
    """Whether the voxel axes are orthogonal, so that a quaternion (qform) can say the same as the matrix."""
    axes = grid.affine[:3, :3] / np.asarray(grid.spacing)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-6))
