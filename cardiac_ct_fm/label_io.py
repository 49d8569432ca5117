"""Label maps out and in: ``.nii.gz`` on the scan's own grid, with the labels' names in the header.

One file holds the labels of all heads; what finer ones cover (the aorta under its calcium) is kept beside it, so that
the heads' own maps come back whole. Written directly (header, then one compressed stream at level 1), which is several
times faster than the general NIfTI writer. Imports no torch.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEADS, heads_in_order
from cardiac_ct_fm.components import Box, LabelMap, occupied_box, voxel_counts
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


def label_values(classes: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
    """(head, class) → voxel value in the one label map that is saved.

    The vocabulary's structures keep their values whichever heads were computed (heart 1–7, Calc 8, Coronary 9); the
    classes of other heads follow in the order given.

    Raises:
        DataError: more classes than a byte can hold.
    """
    table = {key: value for value, key in enumerate(((h, n) for h, names in _built_in().items() for n in names), 1)}
    extra = [(head, name) for head, names in classes.items() for name in names if (head, name) not in table]
    table |= {key: value for value, key in enumerate(extra, start=len(table) + 1)}
    if len(table) > np.iinfo(np.uint8).max:
        raise DataError(f"{len(table)} classes do not fit one label map of bytes (255); save fewer heads.")
    wanted = {(head, name) for head, names in classes.items() for name in names}
    return {key: value for key, value in table.items() if key in wanted}


def save_covered(path: str | Path, maps: Mapping[str, LabelMap]) -> None:
    """Write what the one label map hides: each head's labels in the box around those of the finer heads after it.

    Args:
        path: ends in ``.npz``; nothing is written where nothing can be hidden.
        maps: head → (X, Y, Z) uint8.

    Raises:
        OutputError: the file system refuses.
    """
    hidden: dict[str, Any] = {}
    finer: Box | None = None
    for head in reversed(heads_in_order(maps)):
        if finer is not None:
            hidden[f"{head}/start"], hidden[f"{head}/labels"] = [s.start for s in finer], maps[head][finer]
        boxes = [box for box in (finer, occupied_box(maps[head])) if box is not None]
        if boxes:
            x, y, z = (
                slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True)
            )
            finer = x, y, z
    if hidden:
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **hidden)


def load_covered(path: str | Path) -> dict[str, tuple[Box, LabelMap]]:
    """Head → box and its labels there, from :func:`save_covered`; nothing where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not Path(path).exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        covered: dict[str, tuple[Box, LabelMap]] = {}
        for head in {key.rpartition("/")[0] for key in arrays}:
            under = arrays[f"{head}/labels"].astype(np.uint8, copy=False)
            x, y, z = (slice(a, a + n) for a, n in zip(arrays[f"{head}/start"].tolist(), under.shape, strict=True))
            covered[head] = (x, y, z), under
        return covered
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}). Predict again, or take it away.") from error


def take_apart(
    labels: LabelMap,
    names: Mapping[int, str],
    recorded: Mapping[str, Sequence[str]],
    covered: Mapping[str, tuple[Box, LabelMap]],
) -> tuple[dict[str, LabelMap], dict[str, tuple[str, ...]], dict[str, int]]:
    """The heads' own maps from the one label map of all; labels that belong to no head go into a head ``other``.

    Args:
        labels: (X, Y, Z) the one label map.
        names: value → name; an editor that saves the map again may drop them, the values are then those of
            :func:`label_values`.
        recorded: head → names of its classes, as the map was made from; the vocabulary's heads are known.
        covered: head → box and its labels there, see :func:`load_covered`.

    Returns:
        Head → (X, Y, Z) label map, head → names of its classes, and head → how many voxels lie under finer labels
        without a record of what the head says there (0 where the map was not edited).

    Raises:
        DataError: ``covered`` belongs to another scan.
    """
    counts = voxel_counts(labels)
    heads = {head: tuple(classes) for head, classes in {**_built_in(), **recorded}.items()}
    names = dict(names) or {value: name for (_, name), value in label_values(recorded or heads).items()}
    names |= {value: f"label_{value}" for value in range(1, 256) if counts[value] and value not in names}
    heads = {head: classes for head, classes in heads.items() if not set(classes).isdisjoint(names.values())}
    known = {name for classes in heads.values() for name in classes}
    if rest := tuple(name for _, name in sorted(names.items()) if name not in known):
        heads["other"] = (*heads.get("other", ()), *rest)
    values, by_name = label_values(heads), {name: value for value, name in names.items()}
    maps: dict[str, LabelMap] = {}
    unknown: dict[str, int] = {}
    finer = np.zeros(256, bool)
    for head in reversed(heads_in_order(heads)):
        table = np.zeros(256, np.uint8)
        for number, name in enumerate(heads[head], start=1):
            value = values[head, name]
            table[value if names.get(value) == name else by_name.get(name, 0)] = number
        table[0] = 0
        maps[head] = table[labels]
        unknown[head] = int(counts[finer].sum())
        if head in covered and unknown[head]:
            box, under = covered[head]
            hidden = finer[labels[box]]
            if hidden.shape != under.shape:
                raise DataError(f"What was recorded under the labels of {head} belongs to another scan; predict again.")
            np.copyto(maps[head][box], under, where=hidden)
            unknown[head] -= int(np.count_nonzero(hidden))
        finer |= table > 0
    return dict(reversed(maps.items())), heads, unknown


def _built_in() -> dict[str, tuple[str, ...]]:
    """Segmentation head of the vocabulary → names of its classes."""
    return {name: spec.classes for name, spec in HEADS.items() if spec.kind == "segmentation"}


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
