"""Scans in: NIfTI files, DICOM folders and arrays become one :class:`Volume` in Hounsfield units.

Imports no torch. Values stay in the file's own 16 bits where it has them, and are memory-mapped where they can be.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.files import gzip_errors, gzip_reader
from cardiac_ct_fm.geometry import FloatArray, Grid, validated_affine
from cardiac_ct_fm.process import memory_gb

if TYPE_CHECKING:
    import nibabel as nib

Array = npt.NDArray[Any]

NIFTI_ENDINGS = (".nii.gz", ".nii")
ACCEPTED = "a NIfTI file (.nii, .nii.gz) or a folder with one DICOM series"

_READ_BYTES = 1 << 24
"""Bytes that are unpacked at once."""

_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
"""NIfTI's length units other than mm, in mm."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in the patient.

    Attributes:
        data: (X, Y, Z) int16 or float32, Hounsfield units; read it, don't write it (it may be memory-mapped).
        affine: (4, 4) float64, voxel index (centre) → world RAS mm.
        source: where it came from, for messages and ``run.json``.
        facts: what the header tells beside geometry, for example ``patient_position`` (DICOM's code, ``HFS`` is
            supine) and ``format``; a fact that is not known is not there.
    """

    data: Array
    affine: FloatArray
    source: str = "array"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The scan's own lattice."""
        return Grid((self.data.shape[0], self.data.shape[1], self.data.shape[2]), self.affine)

    @property
    def name(self) -> str:
        """The file's or folder's name without its ending; the name of the folder of results."""
        return case_name(self.source)


def readable(name: str) -> str:
    """A name with ``_`` for every byte that is no UTF-8, which no text, table or picture can hold."""
    return "".join("_" if "\ud800" <= letter <= "\udfff" else letter for letter in name)


def case_name(source: str | Path) -> str:
    """``ct`` for ``…/ct.nii.gz`` and for a folder ``…/ct``, as :func:`readable`."""
    name = readable(Path(source).name)
    for ending in NIFTI_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name or "scan"


def load_volume(
    source: str | Path | Volume | tuple[npt.ArrayLike, npt.ArrayLike], series: str | None = None, check: bool = True
) -> Volume:
    """Read a scan.

    Args:
        source: a NIfTI file (any orientation, oblique, integer or floating, with or without scaling), a folder with
            a DICOM series, an ``(array, affine)`` pair in HU and RAS mm, or a :class:`Volume`.
        series: DICOM series UID, or its beginning or ending, when the folder holds several.
        check: refuse what is not a usable cardiac CT (see :mod:`cardiac_ct_fm.image_checks`).

    Raises:
        ImageError: the image cannot be read or is no CT; one line with the reason and the way out.
        MissingExtraError: a DICOM folder, and the extra ``dicom`` is not installed.
    """
    if isinstance(source, Volume):
        volume = source
    elif isinstance(source, tuple):
        volume = _from_array(*source)
    else:
        path = Path(source)
        if path.is_dir():
            from cardiac_ct_fm.dicom_io import load_dicom_folder

            volume = load_dicom_folder(path, series)
        elif not path.exists():
            raise ImageError(f"{path} does not exist. Give {ACCEPTED}.")
        elif path.name.lower().endswith(NIFTI_ENDINGS):
            volume = _load_nifti(path)
        else:
            raise ImageError(f"{path} is no image that can be read here. Give {ACCEPTED}.")
    if check:
        from cardiac_ct_fm.image_checks import check_volume

        check_volume(volume)
    return volume


def _from_array(array: npt.ArrayLike, affine: npt.ArrayLike) -> Volume:
    """A volume from values in HU and a voxel → RAS affine."""
    data = as_hounsfield(_three_dimensional(np.asarray(array), "The array"), "The array")
    return Volume(data, validated_affine(affine), "array", {"format": "array"})


def _load_nifti(path: Path) -> Volume:
    """A volume from a NIfTI-1 or -2 file."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error) as e:
        raise ImageError(f"{path} is not a NIfTI image ({_one_line(e)}). Give {ACCEPTED}.") from e
    except ValueError as e:
        raise ImageError(f"{path} has a damaged NIfTI header ({_one_line(e)}). Export the scan again.") from e
    if not isinstance(image, nib.Nifti1Image | nib.Nifti1Pair):
        raise ImageError(f"{path} is a {type(image).__name__}, not a NIfTI image. Give {ACCEPTED}.")
    header = image.header
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        raise ImageError(
            f"{path} does not say where its voxels are (qform and sform codes are both 0), so left and right are "
            "unknown. Convert the scan from DICOM again, or set the sform if you know it."
        )
    try:
        affine = validated_affine(image.affine)
    except ImageError as e:
        raise ImageError(f"{path}: {e}") from e
    affine[:3] *= _MILLIMETRES.get(str(header.get_xyzt_units()[0]), 1.0)
    _three_dimensional_shape(image.shape, header.get_data_dtype(), str(path))
    _check_memory(path, image)
    raw = _three_dimensional(_read_voxels(path, image), str(path))
    # nibabel moves the scaling from the header to the proxy of the data.
    data = as_hounsfield(raw, str(path), float(image.dataobj.slope), float(image.dataobj.inter))
    return Volume(data, affine, str(path), {"format": "NIfTI"})


def _check_memory(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse, before a voxel is read, what cannot be held even once.

    Raises:
        ImageError: the voxels take more memory than is available.
    """
    need = math.prod(image.shape) * image.header.get_data_dtype().itemsize / 1e9
    available = memory_gb()[1]
    if available is not None and need > available:
        shape = " × ".join(map(str, image.shape))
        raise ImageError(
            f"{path} has {shape} voxels, {need:.1f} GB, and {available:.1f} GB of memory are available. Give the "
            "heart alone, resample it to 0.5 mm or more, or use a machine with more memory."
        )


def _read_voxels(path: Path, image: nib.Nifti1Image) -> Array:
    """The stored values, unscaled, Fortran order; memory-mapped when the file is not compressed."""
    dtype, offset = image.header.get_data_dtype(), int(image.dataobj.offset)
    way_out = "Copy or export the scan again."
    try:
        if not path.name.lower().endswith(".gz"):
            expected = offset + int(np.prod(image.shape)) * dtype.itemsize
            if path.stat().st_size < expected:
                raise ImageError(f"{path} is truncated: {path.stat().st_size} of {expected} bytes. {way_out}")
            return np.memmap(path, dtype, "r", offset, image.shape, "F")
        with gzip_reader(path) as stream:
            stream.read(offset)
            array = _filled(np.empty(image.shape, dtype, order="F"), stream)
            while stream.read(_READ_BYTES):
                pass  # to the end, where the checksum is
            return array
    except gzip_errors() as e:
        raise ImageError(f"{path} is truncated or damaged ({_one_line(e)}). {way_out}") from e


def _filled(array: Array, stream: IO[bytes]) -> Array:
    """``array`` (Fortran order) filled in place from a stream, so that the scan is held once only.

    Raises:
        EOFError: the stream ends early.
    """
    target = array.T.data.cast("B")
    done = 0
    while done < len(target):
        count = stream.readinto(target[done : done + _READ_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"it ends after {done} of {len(target)} bytes")
        done += count
    return array


def _three_dimensional_shape(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> None:
    """Refuse anything but one grey-valued 3-D image; trailing axes of length 1 are allowed."""
    if dtype.fields is not None or dtype.kind not in "iufb":
        raise ImageError(
            f"{what} holds colours or complex numbers ({dtype}), not Hounsfield units. Export the CT's own grey values."
        )
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise ImageError(
            f"{what} has {len(shape)} dimensions {tuple(shape)}; one 3-D image is needed. "
            "Extract a single time point, the diastolic one, and give that."
        )
    if len(shape) < 3 or min(shape) < 2:
        raise ImageError(f"{what} is a 2-D image {tuple(shape)}; a stack of slices is needed. Give the whole series.")


def _three_dimensional(array: Array, what: str) -> Array:
    """``array`` with trailing axes of length 1 taken away.

    Raises:
        ImageError: 2-D, 4-D, colours or complex numbers.
    """
    _three_dimensional_shape(array.shape, array.dtype, what)
    return array.reshape(array.shape[:3], order="F" if array.flags.f_contiguous else "C")


def as_hounsfield(raw: Array, what: str, slope: float = 1.0, intercept: float = 0.0) -> Array:
    """``raw * slope + intercept`` as int16 where that is exact, else float32; no copy where none is needed.

    Args:
        raw: (X, Y, Z) stored values, integer or floating.
        what: the image's name for messages.
        slope: HU per stored unit.
        intercept: HU of a stored zero.

    Raises:
        ImageError: slope and intercept are not finite.
    """
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise ImageError(f"{what} has a scaling of slope {slope} and intercept {intercept}; repair its header.")
    raw = raw.astype(raw.dtype.newbyteorder("=")) if not raw.dtype.isnative else raw
    limits = np.iinfo(np.int16)
    if raw.dtype.kind in "iub" and slope == 1 and float(intercept).is_integer():
        if raw.dtype == np.int16 and intercept == 0:
            return raw
        if limits.min <= int(raw.min()) + intercept and int(raw.max()) + intercept <= limits.max:
            if raw.dtype == np.uint16 and intercept == 0:
                return raw.view(np.int16)
            # Sixteen-bit arithmetic wraps around, so only the result has to fit, which was just seen.
            data = raw.astype(np.int16)
            np.add(data.view(np.uint16), np.uint16(int(intercept) % 65536), out=data.view(np.uint16))
            return data
    if raw.dtype == np.float32 and slope == 1 and intercept == 0:
        return raw
    scaled = np.multiply(raw, slope, dtype=np.float32, casting="unsafe")
    scaled += np.float32(intercept)
    return scaled


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
