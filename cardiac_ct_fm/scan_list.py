"""Which scans are meant: NIfTI files, DICOM folders and folders of either become a list of named cases. No torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePosixPath

from cardiac_ct_fm.dicom_files import read_header
from cardiac_ct_fm.errors import ImageError, MissingExtraError
from cardiac_ct_fm.result import RESULT_FILES
from cardiac_ct_fm.volume_io import NIFTI_ENDINGS, case_name, readable

_DICOM_PREAMBLE, _DICOM_MAGIC = 128, b"DICM"
"""Where a DICOM file says that it is one (PS3.10, 7.1)."""


@dataclass(frozen=True)
class Case:
    """One scan to be read.

    Attributes:
        name: of the folder of its results, relative to the output folder; unique in a list, may hold ``/``.
        source: NIfTI file or DICOM folder.
        series: DICOM series UID, its beginning or ending, where the folder holds several.
    """

    name: str
    source: Path
    series: str | None = None


def list_cases(sources: Sequence[str | Path], series: str | None = None) -> list[Case]:
    """One case per scan, in the order given; folders in the order of their names.

    A folder is searched to its end: every NIfTI file and every folder with DICOM files in it is a scan of its own. A
    series that is spread over several folders is one scan. Results (:data:`cardiac_ct_fm.result.RESULT_FILES`) and
    hidden files are passed by. What does not exist is listed all the same, so that reading it says so.

    Args:
        sources: files and folders.
        series: choice of a DICOM series; a folder is then one DICOM folder, with all that is below it.

    Raises:
        ImageError: no source at all.
    """
    if not sources:
        raise ImageError("No scan was given. Give NIfTI files, DICOM folders, or folders of them.")
    cases: dict[Path, Case] = {}
    for source in map(Path, sources):
        found = _in_folder(source, series) if source.is_dir() else [Case(case_name(source), source)]
        for case in found:
            cases.setdefault(case.source.resolve() / (case.series or ""), case)
    return _named_apart(list(cases.values()))


def _in_folder(folder: Path, series: str | None) -> list[Case]:
    """The scans of a folder; the folder itself where it is one, or holds none."""
    whole = Case(case_name(folder.resolve()), folder, series)
    scans, dicom = [], []
    for place, files in _walk(folder):
        scans += [f for f in files if f.name.lower().endswith(NIFTI_ENDINGS)]
        if any(map(_is_dicom, files)):
            dicom.append(place)
    if not scans and (series is not None or not dicom or dicom == [folder]):
        return [whole]
    found = [Case(_relative(scan, folder), scan) for scan in scans]
    for places, uid in _series_folders(dicom):
        source = Path(os.path.commonpath(places))
        name = whole.name if source == folder else _relative(source, folder)
        found.append(Case(name, source, series or (uid if len(places) > 1 else None)))
    return sorted(found, key=lambda case: case.name)


def _walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Folders and their files, in order, without hidden ones and without results."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield Path(place), [Path(place, f) for f in sorted(files) if not f.startswith(".") and f not in RESULT_FILES]


def _is_dicom(file: Path) -> bool:
    """Whether a file says that it is DICOM; the index of a medium (``DICOMDIR``) has no image."""
    if file.name == "DICOMDIR":
        return False
    try:
        with file.open("rb") as stream:
            stream.seek(_DICOM_PREAMBLE)
            return stream.read(len(_DICOM_MAGIC)) == _DICOM_MAGIC
    except OSError:
        return False


def _series_folders(places: Sequence[Path]) -> list[tuple[list[Path], str | None]]:
    """Folders with DICOM, those that share their first file's series taken together with its UID."""
    groups: dict[str, list[Path]] = {}
    for place in places:
        groups.setdefault(_first_series(place) if len(places) > 1 else "", []).append(place)
    return [([place], None) for place in groups.pop("", [])] + [(group, uid) for uid, group in groups.items()]


def _first_series(folder: Path) -> str:
    """Series UID of the first DICOM file in a folder; empty where it cannot be read (reading the scan says why)."""
    first = next(f for f in sorted(folder.iterdir()) if f.is_file() and _is_dicom(f))
    try:
        header = read_header(first)
    except (ImageError, MissingExtraError):
        return ""
    return str((header or {}).get("SeriesInstanceUID", ""))


def _relative(source: Path, folder: Path) -> str:
    """``a/ct`` for ``folder/a/ct.nii.gz``."""
    parent = source.relative_to(folder).parent
    return str(PurePosixPath(*parent.parts, case_name(source)))


def _named_apart(cases: list[Case]) -> list[Case]:
    """The same cases; equal names (in any case of letters) are told apart, so that each has a folder of its own.

    Series of one folder get the end of their UID behind the name, files their ending where what lies beside them has
    the same name, others the names of their parent folders in front, and what is still equal a number.
    """
    places = [Path(os.path.abspath(case.source)) for case in cases]  # noqa: PTH100 - links keep their names
    series: dict[Path, list[str]] = {}
    for case, place in zip(cases, places, strict=True):
        series.setdefault(place, []).append(case.series or "")
    cases = [
        replace(c, name=f"{c.name}-{_end(c.series, series[place])}") if c.series and len(series[place]) > 1 else c
        for c, place in zip(cases, places, strict=True)
    ]
    siblings = Counter((place.parent, c.name.casefold()) for c, place in zip(cases, places, strict=True))
    cases = [
        replace(c, name=f"{c.name}{_ending(place)}") if siblings[place.parent, c.name.casefold()] > 1 else c
        for c, place in zip(cases, places, strict=True)
    ]
    for depth in range(max((len(place.parts) for place in places), default=0)):
        homes = {(c.name.casefold(), place.parent) for c, place in zip(cases, places, strict=True)}
        names = Counter(name for name, _ in homes)
        cases = [
            replace(c, name="-".join([*place.parts[1:][-2 - depth : -1 - depth], c.name]))
            if names[c.name.casefold()] > 1
            else c
            for c, place in zip(cases, places, strict=True)
        ]
    return _numbered(cases)


def _ending(place: Path) -> str:
    """``-nii-gz`` for ``ct.nii.gz``, nothing for a folder ``ct``; with a dot, results would be named like a scan."""
    return place.name[len(case_name(place)) :].replace(".", "-")


def _numbered(cases: list[Case]) -> list[Case]:
    """The same cases; of equal names the second gets ``-2`` behind it, the third ``-3``."""
    named: dict[str, Case] = {}
    for case in cases:
        own = readable(case.name)
        names = chain([own], (f"{own}-{number}" for number in count(2)))
        name = next(name for name in names if name.casefold() not in named)
        named[name.casefold()] = replace(case, name=name)
    return list(named.values())


def _end(uid: str, all_of_them: Sequence[str]) -> str:
    """The shortest ending of a series UID, in whole numbers, that no other one has."""
    numbers = uid.split(".")
    ends = (".".join(numbers[-n:]) for n in range(1, len(numbers)))
    return next((end for end in ends if sum(other.endswith(f".{end}") for other in all_of_them) == 1), uid)
