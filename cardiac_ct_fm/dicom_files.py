"""One DICOM file: the header elements that are needed, whether it is a slice of a scan, and its values in HU.

pydicom reads headers and plain pixels, SimpleITK (GDCM) unpacks compressed ones; both come with the extra ``dicom``.
No name, number or date of the patient is read. Whatever a damaged file makes these libraries raise becomes an error
that names the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.errors import CardiacCTError, ImageError, MissingExtraError
from cardiac_ct_fm.volume_io import as_hounsfield

_HEADER_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality", "ImageType",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "NominalPercentageOfCardiacPhase", "TriggerTime", "TemporalPositionIdentifier",
    "AcquisitionNumber", "PatientPosition", "Manufacturer", "ManufacturerModelName", "SliceThickness",
    "ConvolutionKernel", "KVP",
]  # fmt: skip

_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
"""How many numbers the elements hold that give a slice its place (PS3.3 C.7.6.2, C.7.6.3)."""


def read_header(path: Path) -> Any | None:
    """The header elements that are needed, or None when the file is not DICOM.

    Raises:
        ImageError: it is DICOM, but cannot be read.
        MissingExtraError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError("Reading DICOM", "dicom") from error
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
        for _ in header:
            pass  # pydicom reads an element when it is asked for it
        return header
    except pydicom.errors.InvalidDicomError:
        return None
    except Exception as error:  # what a damaged file makes pydicom raise has no common base
        raise ImageError(f"{_damaged(path, error)} If it is no part of the scan, take it out of the folder.") from error


def is_slice(header: Any) -> bool:
    """Whether a file is one grey slice with a place in the patient, and no localizer."""
    try:
        return (
            bool(header.get("SeriesInstanceUID") and header.get("SOPInstanceUID"))
            and all(_finite(header.get(name)) == count for name, count in _NUMBERS.items())
            and header.get("SamplesPerPixel", 1) == 1
            and not is_multi_frame(header)
            and "LOCALIZER" not in [str(v).upper() for v in header.get("ImageType") or ()]
        )
    except (TypeError, ValueError):  # what should be a number is none
        return False


def is_multi_frame(header: Any) -> bool:
    """Whether a file holds several images (enhanced DICOM, or a film)."""
    frames = header.get("NumberOfFrames")
    return isinstance(frames, int) and frames > 1


def slice_hu(path: Path) -> npt.NDArray[Any]:
    """(rows, columns) int16 or float32 HU of one file.

    Raises:
        ImageError: the pixels cannot be unpacked.
        MissingExtraError: they are compressed, and SimpleITK is not installed.
    """
    import pydicom

    try:
        header = pydicom.dcmread(path)
        packed = header.file_meta.TransferSyntaxUID.is_encapsulated
        if packed and header.file_meta.TransferSyntaxUID != pydicom.uid.RLELossless:
            values = as_hounsfield(_unpacked_by_gdcm(path), str(path))
        else:
            slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
            values = as_hounsfield(header.pixel_array, str(path), slope, intercept)
        if values.shape != (header.Rows, header.Columns):
            raise ValueError(
                f"its pixels are {values.shape}, its header says {header.Rows} rows, {header.Columns} columns"
            )
        return values
    except CardiacCTError:
        raise
    except Exception as error:  # see read_header
        raise ImageError(_damaged(path, error)) from error


def _finite(value: Any) -> int:
    """How many finite numbers an element holds.

    Raises:
        ValueError: something in it is no number; also as a TypeError.
    """
    return int(np.isfinite(np.asarray(() if value is None else value, float)).sum())


def _unpacked_by_gdcm(path: Path) -> npt.NDArray[Any]:
    """(rows, columns) HU of a JPEG, JPEG-LS or JPEG 2000 file; GDCM applies slope and intercept itself."""
    try:
        import SimpleITK as sitk  # noqa: N813 - its own documentation's name
    except ImportError as error:
        raise MissingExtraError("Unpacking compressed DICOM", "dicom") from error
    pixels: npt.NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    return pixels


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{path} is truncated or damaged ({reason}). Export the series again."
