"""Scans of any size for benchmarks: the real demonstration scan, interpolated onto another lattice."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from cardiac_ct_fm.files import atomic_write, gzip_writer
from cardiac_ct_fm.geometry import Grid, to_canonical
from cardiac_ct_fm.preprocess import resample_hu
from cardiac_ct_fm.volume_io import Volume, load_volume

DEMO = Path(__file__).parents[2] / "examples" / "data" / "ts-aorta-cta" / "ct_cropped.nii.gz"
"""The real CT angiography of the examples, 120×126×164 voxels of 1.5 mm."""

NOISE_HU = 20.0
"""Noise that is added, as in the aorta of a planning scan (SD 20–25 HU), so that files pack as badly as real ones."""

SLAB = 16
"""Slices that are made at once."""


def make_scan(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Volume:
    """The demonstration scan on a lattice of this shape and spacing around its middle; its rim goes on beyond it."""
    demo = load_volume(DEMO)
    data, affine = to_canonical(demo.data, demo.affine)
    target = Grid.centred(demo.grid.centre_ras, spacing_mm, shape)
    extra = np.ceil((np.array(target.extent_mm) - demo.grid.canonical().extent_mm) / 2 / demo.grid.spacing).astype(int)
    pad = np.maximum(extra + 1, 0)
    affine[:3, 3] -= affine[:3, :3] @ pad
    wide = Volume(np.pad(data, [(p, p) for p in pad], mode="edge"), affine)
    noise = np.random.default_rng(0).normal(0, NOISE_HU, (*shape[:2], SLAB))
    result = np.empty(shape, np.int16, order="F")
    for begin in range(0, shape[2], SLAB):
        count = min(SLAB, shape[2] - begin)
        slab = resample_hu(wide, target.block((0, 0, begin), (shape[0], shape[1], count)), -1024.0).numpy()
        result[:, :, begin : begin + count] = np.rint(slab + noise[:, :, :count])
    return Volume(result, target.affine, "benchmark")


def write_scan(path: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Path:
    """:func:`make_scan` as ``.nii.gz``; a file that is there already is kept."""
    if path.exists():
        return path
    volume = make_scan(shape, spacing_mm)
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_sform(volume.affine, 1)
    header["pixdim"][1:4] = spacing_mm
    with atomic_write(path) as temporary, temporary.open("wb") as file, gzip_writer(file) as stream:
        header.write_to(stream)
        stream.write(np.ascontiguousarray(volume.data.T).data.cast("B"))
    return path
