"""The real scan at half its resolution, which is read and predicted in a second, and arrays as NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from cardiac_ct_fm.volume_io import Volume


def every_second_voxel(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """A scan's voxels and affine at twice its spacing."""
    affine = volume.affine.copy()
    affine[:3, :3] *= 2
    return np.ascontiguousarray(volume.data[::2, ::2, ::2]), affine


def nifti(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    """An array as a NIfTI file in mm."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path
