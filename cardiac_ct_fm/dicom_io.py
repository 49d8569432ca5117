"""DICOM folders: which series are in there, and one of them as a :class:`~cardiac_ct_fm.volume_io.Volume`.

pydicom reads headers and plain pixels, SimpleITK (GDCM) unpacks compressed ones; both come with the extra ``dicom``.
Positions come from each slice's own header, so gaps are seen and a gantry tilt stays in the affine. No name, number
or date of the patient is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.dicom_stack import UNREADABLE, DicomSeries, phases, stack_affine
from cardiac_ct_fm.errors import ImageError, MissingExtraError
from cardiac_ct_fm.volume_io import Volume, as_hounsfield

_HEADER_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality", "ImageType",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "NominalPercentageOfCardiacPhase", "TriggerTime", "TemporalPositionIdentifier",
    "AcquisitionNumber", "PatientPosition", "Manufacturer", "ManufacturerModelName", "SliceThickness",
    "ConvolutionKernel", "KVP",
]  # fmt: skip

_NUMBERS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
"""How many numbers the elements hold that give a slice its place (PS3.3 C.7.6.2, C.7.6.3)."""

_MAX_LISTED = 20
"""Series that an error names: all phases of a gated acquisition in steps of 5 %."""

_FACTS = {
    "PatientPosition": "patient_position",
    "SeriesInstanceUID": "series_uid",
    "SeriesDescription": "series_description",
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "scanner",
    "SliceThickness": "slice_thickness_mm",
    "ConvolutionKernel": "kernel",
    "KVP": "kvp",
}
"""Header elements that go into :attr:`Volume.facts`; none of them names a patient or a date."""


def find_series(folder: str | Path) -> list[DicomSeries]:
    """All image stacks of a folder and its subfolders, the longest first; localizers and reports are left out.

    Raises:
        ImageError: a file says that it is DICOM and cannot be read.
        MissingExtraError: pydicom is not installed.
    """
    groups: dict[tuple[Any, ...], dict[str, tuple[Path, Any]]] = {}
    for path in _files(Path(folder)):
        try:
            header = _read_header(path)
            if header is None or not _is_slice(header):
                continue
        except UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(
                f"{path} is a damaged DICOM file ({reason}). Export the series again, or remove the file if it is no "
                "slice of it."
            ) from error
        orientation = tuple(round(float(v), 3) for v in header.ImageOrientationPatient)
        group = (str(header.SeriesInstanceUID), orientation, int(header.Rows), int(header.Columns))
        # The same instance copied twice into a folder is one slice.
        groups.setdefault(group, {})[str(header.SOPInstanceUID)] = (path, header)
    found: list[DicomSeries] = []
    for (uid, *_), slices in groups.items():
        for phase, part in phases(list(slices.values())):
            first = part[0][1]
            key = f"{uid}#{phase}" if phase else uid
            if key in {other.key for other in found}:  # another matrix or orientation under the same UID
                own = f"{key}#{first.Columns}x{first.Rows}"
                names = (own if n == 1 else f"{own}-{n}" for n in count(1))
                key = next(name for name in names if name not in {other.key for other in found})
            description = str(getattr(first, "SeriesDescription", "") or "").strip()
            found.append(DicomSeries(key, description, str(getattr(first, "Modality", "?")), tuple(part)))
    return sorted(found, key=lambda s: -len(s.slices))


def load_dicom_folder(folder: str | Path, series: str | None = None) -> Volume:
    """One CT series as a volume.

    Args:
        folder: its files may lie in subfolders, beside other files.
        series: series UID (with ``#phase``, as the error lists them), its beginning or ending, or the description.

    Raises:
        ImageError: no DICOM, no CT, several series and none chosen, a lost slice, a damaged file.
        MissingExtraError: the extra ``dicom`` is not installed.
    """
    chosen = _choose(Path(folder), find_series(folder), series)
    return _assemble(Path(folder), chosen)


def _choose(folder: Path, found: Sequence[DicomSeries], wanted: str | None) -> DicomSeries:
    """The series that is meant.

    Raises:
        ImageError: it is not clear, or it is no CT.
    """
    if not found:
        headers = [header for path in _files(folder) if (header := _read_header(path)) is not None]
        if any(int(getattr(header, "NumberOfFrames", None) or 1) > 1 for header in headers):
            raise ImageError(
                f"{folder} holds multi-frame (enhanced) DICOM, which is not read here. Convert it to NIfTI (dcm2niix)."
            )
        others = Counter("".join(p.suffixes[-2:]) or "no ending" for p in _files(folder))
        seen = ", ".join(f"{n} × {ending}" for ending, n in others.most_common(3)) or "it is empty"
        raise ImageError(
            f"{folder} holds no DICOM image series ({seen}). "
            "Give the folder of one CT series, or a .nii or .nii.gz file."
        )
    scans = [s for s in found if s.modality == "CT"]
    if not scans:
        raise ImageError(f"{folder} holds no CT but {_listed(found)}. Give a folder with a contrast CT of the heart.")
    if wanted is not None:
        matches = [s for s in scans if s.key == wanted or s.description == wanted]
        matches = matches or [s for s in scans if s.key.startswith(wanted) or s.key.endswith(wanted)]
        if len(matches) == 1:
            return matches[0]
        how_many = "no" if not matches else f"{len(matches)}"
        raise ImageError(
            f"{folder} holds {how_many} CT series that fit {wanted!r}. It holds: {_listed(matches or scans)}."
        )
    if len(scans) > 1:
        raise ImageError(
            f"{folder} holds {len(scans)} CT series: {_listed(scans)}. Choose one with --series UID (in Python: "
            "series='UID'); the last digits, or the description, are enough."
        )
    return scans[0]


def _listed(series: Sequence[DicomSeries]) -> str:
    """The series in one line, the longest first."""
    more = f"; and {len(series) - _MAX_LISTED} more" if len(series) > _MAX_LISTED else ""
    return "; ".join(map(str, series[:_MAX_LISTED])) + more


def _assemble(folder: Path, series: DicomSeries) -> Volume:
    """Pixels and geometry of one stack.

    Raises:
        ImageError: one slice only, a lost slice, a slice that cannot be unpacked.
    """
    if len(series.slices) < 2:
        raise ImageError(
            f"{folder}: series {series} is a 2-D image; a stack of slices is needed. Give the whole series."
        )
    affine = stack_affine(folder, series)
    first = series.slices[0][1]
    stack = np.empty((len(series.slices), int(first.Rows), int(first.Columns)), np.int16)
    for index, (path, _) in enumerate(series.slices):
        values = _slice_hu(path)
        if values.dtype != stack.dtype and stack.dtype == np.int16:
            stack = stack.astype(np.float32)
        stack[index] = values
    facts: dict[str, Any] = {"format": "DICOM"}
    for element, fact in _FACTS.items():
        value = getattr(first, element, None)
        if value not in (None, ""):
            facts[fact] = float(value) if element in ("SliceThickness", "KVP") else str(value)
    return Volume(stack.T, affine, str(folder), facts)


def _slice_hu(path: Path) -> npt.NDArray[Any]:
    """(rows, columns) int16 or float32 HU of one file.

    Raises:
        ImageError: the pixels cannot be unpacked.
    """
    import pydicom

    try:
        header = pydicom.dcmread(path)
        packed = header.file_meta.TransferSyntaxUID.is_encapsulated
        if packed and header.file_meta.TransferSyntaxUID != pydicom.uid.RLELossless:
            return as_hounsfield(_unpacked_by_gdcm(path), str(path))
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        return as_hounsfield(header.pixel_array, str(path), slope, intercept)
    except (*UNREADABLE, RuntimeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ImageError(f"{path} is truncated or damaged ({reason}). Export the series again.") from error


def _unpacked_by_gdcm(path: Path) -> npt.NDArray[Any]:
    """(rows, columns) HU of a JPEG, JPEG-LS or JPEG 2000 file; GDCM applies slope and intercept itself."""
    try:
        import SimpleITK as sitk  # noqa: N813 - its own documentation's name
    except ImportError as error:
        raise MissingExtraError("Unpacking compressed DICOM", "dicom") from error
    pixels: npt.NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
    return pixels


def _files(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, in order."""
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _read_header(path: Path) -> Any | None:
    """The header elements that are needed, or None when the file is not DICOM.

    Raises:
        MissingExtraError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError("Reading DICOM", "dicom") from error
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
    except (pydicom.errors.InvalidDicomError, EOFError, OSError):
        return None


def _is_slice(header: Any) -> bool:
    """Whether a file is one grey slice with a place in the patient, and no localizer."""
    try:
        return (
            bool(header.get("SeriesInstanceUID") and header.get("SOPInstanceUID"))
            and all(np.asarray(header.get(n) or (), float).size == count for n, count in _NUMBERS.items())
            and header.get("SamplesPerPixel", 1) == 1
            and int(header.get("NumberOfFrames") or 1) == 1
            and "LOCALIZER" not in [str(v).upper() for v in header.get("ImageType") or ()]
        )
    except ValueError:  # what should be a number is none
        return False
