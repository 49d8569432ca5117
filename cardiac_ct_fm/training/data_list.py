"""Data lists: which scans have which labels, in MONAI's Decathlon JSON, read, checked, split by patient, written.

The form is MONAI's (``training``, ``validation``, ``test``: lists of ``{"image": …, "label": …}``), with additions that
MONAI passes through:

* a head's name as a key (``"heart": "heart.nii.gz"``) gives the label map, or the landmark file, of that head;
  plain ``label`` is the one of the head that is being trained;
* ``landmarks``: one file (``.json``, ``.mrk.json``, ``.mps``) with the points of all landmark heads;
* ``labels``: the heads that ``landmarks`` and a plain ``label`` are of; all where an entry has none. A label with a
  head's name as key counts in any case, so a doubtful map has no key;
* ``patient`` and ``site``: whose scan it is, and where it was made. Without ``patient`` every scan is a patient.

``labels`` of the list itself names the classes: ``{"0": "background", "1": "Coronary"}``, a list of names, or one such
list per head. Paths are relative to the JSON file. Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import write_json
from cardiac_ct_fm.volume_io import case_name

SECTIONS = {"training": ("training",), "validation": ("validation", "val"), "test": ("test", "testing")}
"""Sections, and the names under which MONAI's own lists have them."""

_OWN_KEYS = ("image", "label", "landmarks", "labels", "patient", "site", "fold")
"""Keys of an entry that are no head."""

ANY_HEAD = "label"
"""Key of a label whose head the list does not name."""

EXAMPLE = 'The form is MONAI\'s: {"training": [{"image": "1/ct.nii.gz", "label": "1/label.nii.gz"}], "test": […]}.'

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One scan of a list.

    Attributes:
        image: NIfTI file or DICOM folder.
        patient: whose scan it is.
        site: where it was made, empty when unknown.
        labels: head (or :data:`ANY_HEAD`) → label map or landmark file.
        landmarks: file with the points of all landmark heads, or None.
        labelled: heads that ``landmarks`` and a label of :data:`ANY_HEAD` are of; all when None.
    """

    image: Path
    patient: str
    site: str = ""
    labels: Mapping[str, Path] = field(default_factory=dict)
    landmarks: Path | None = None
    labelled: tuple[str, ...] | None = None

    def label_of(self, head: str, *, points: bool = False, plain: bool = True) -> Path | None:
        """The file that labels a head, or None.

        Args:
            head: the head's name.
            points: whether it is a landmark head, which ``landmarks`` serves too.
            plain: whether :data:`ANY_HEAD` is this head's label.
        """
        if head in self.labels or (self.labelled is not None and head not in self.labelled):
            return self.labels.get(head)
        own = self.labels.get(ANY_HEAD) if plain else None
        return self.landmarks if own is None and points else own


@dataclass(frozen=True)
class DataList:
    """A whole list.

    Attributes:
        training, validation, test: entries; any of them may be empty.
        classes: head (or :data:`ANY_HEAD`) → class names without background, where the list tells.
        name: what it is.
    """

    training: tuple[Entry, ...] = ()
    validation: tuple[Entry, ...] = ()
    test: tuple[Entry, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = "data list"

    def section(self, name: str) -> tuple[Entry, ...]:
        """Entries of ``training``, ``validation`` or ``test``."""
        found: tuple[Entry, ...] = getattr(self, name)
        return found

    def classes_of(self, head: str) -> tuple[str, ...] | None:
        """Class names of a head without background, None where the list does not tell."""
        return self.classes.get(head) or self.classes.get(ANY_HEAD)


def read_data_list(path: str | Path) -> DataList:
    """Read and check a list; every file that it names has to be there.

    Raises:
        DataError: not such a list, no scans in it, a scan without image or label, a file that does not exist, an image
            that is listed twice, or a patient in two sections.
    """
    file = Path(path)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file} cannot be read as a data list: {error}. {EXAMPLE}") from error
    if not isinstance(raw, dict) or not any(key in raw for names in SECTIONS.values() for key in names):
        raise DataError(f"{file} is no data list: it needs a list called training or test. {EXAMPLE}")
    classes = _classes(raw.get("labels"), file)
    pointed = {*HEADS, *classes} - {ANY_HEAD, *(name for name, head in HEADS.items() if head.kind == "segmentation")}
    sections: dict[str, tuple[Entry, ...]] = {}
    for section, names in SECTIONS.items():
        rows: Any = next((raw[key] for key in names if key in raw), [])
        if not isinstance(rows, list):
            raise DataError(f"{file}: {section} is a {type(rows).__name__}, not a list of scans.")
        sections[section] = tuple(_entry(row, file, section, i, pointed) for i, row in enumerate(rows))
    result = DataList(**sections, classes=classes, name=str(raw.get("name", file.stem)))
    check(result, str(file))
    entries = [e for section in SECTIONS for e in result.section(section) if e.labelled is not None]
    if more := sorted({key for e in entries for key in e.labels.keys() - {*(e.labelled or ()), ANY_HEAD}}):
        _log.warning("%s: an entry's labels leave out %s, which count: they have keys.", file, ", ".join(more))
    return result


def _entry(row: Any, file: Path, section: str, number: int, pointed: Collection[str]) -> Entry:
    """One entry, its files looked for; ``landmarks`` can have points of the heads ``pointed``."""
    folder, where = file.resolve().parent, f"{file}: {section}[{number}]"
    if isinstance(row, str) and section == "test":
        row = {"image": row}
    if not isinstance(row, dict) or not isinstance(row.get("image"), str):
        raise DataError(f'{where} has no image; an entry is {{"image": "ct.nii.gz", "label": "label.nii.gz"}}.')
    image = _there(folder / row["image"], where)
    labelled = row.get("labels")
    if labelled is not None and not (isinstance(labelled, list) and all(isinstance(h, str) for h in labelled)):
        raise DataError(f"{where}: labels must be a list of head names, not {labelled!r}.")
    keys = [k for k, v in row.items() if k not in _OWN_KEYS and isinstance(v, str) and k.isidentifier()]
    labels = {key: _there(folder / row[key], where) for key in keys if _looks_like_label(row[key])}
    if row.get(ANY_HEAD) is not None:
        labels[ANY_HEAD] = _there(folder / str(row[ANY_HEAD]), where)
    landmarks = None if row.get("landmarks") is None else _there(folder / str(row["landmarks"]), where)
    known = {*labels, *(pointed if landmarks else ())}
    if ANY_HEAD not in labels and (lost := [head for head in labelled or () if head not in known]):
        has = ", ".join(sorted(known)) or "none"
        raise DataError(f"{where}: labels names {lost[0]!r}, but the entry has labels of {has}; correct it.")
    if section != "test" and not labels and landmarks is None:
        raise DataError(f"{where} ({row['image']}) has an image but no label; add one or move it to test.")
    patient = str(row.get("patient") or case_path(row["image"]))
    limit = None if labelled is None else tuple(labelled)
    return Entry(image, patient, str(row.get("site", "")), labels, landmarks, limit)


def _looks_like_label(value: str) -> bool:
    """Whether a value of an unknown key names a label file; other keys (age, comments) are somebody else's."""
    return value.lower().endswith((".nii", ".nii.gz", ".json", ".mps"))


def _there(path: Path, where: str) -> Path:
    if not path.exists():
        raise DataError(f"{where} names {path}, which does not exist; paths are relative to the list's folder.")
    return path


def case_path(image: str) -> str:
    """A name for the patient of a scan that has none: the image's path without its ending."""
    path = Path(image)
    return (path.parent / case_name(path)).as_posix()


def _classes(raw: Any, file: Path) -> dict[str, tuple[str, ...]]:
    """Class names per head, background left out."""
    if raw is None:
        return {}
    if isinstance(raw, dict) and raw and all(isinstance(v, list) for v in raw.values()):
        return {str(head): _names(_foreground(names), file) for head, names in raw.items()}
    if isinstance(raw, dict) and all(str(key).isdecimal() for key in raw):
        named = {int(key): name for key, name in raw.items() if int(key) > 0}  # 0 is background, whatever its name
        if sorted(named) != [*range(1, len(named) + 1)]:
            raise DataError(f"{file}: labels has the values {sorted(named)}; they must follow each other from 1.")
        return {ANY_HEAD: _names([named[value] for value in sorted(named)], file)}
    if isinstance(raw, list):
        return {ANY_HEAD: _names(_foreground(raw), file)}
    raise DataError(f'{file}: labels must be {{"0": "background", "1": …}}, a list of names, or a list per head.')


def _foreground(names: list[Any]) -> list[Any]:
    """A list of names, which may begin with the background, without it."""
    return names[1:] if names and str(names[0]).lower() == "background" else names


def _names(names: Sequence[Any], file: Path) -> tuple[str, ...]:
    chosen = [str(n) for n in names]
    if not chosen or len(set(chosen)) != len(chosen):
        raise DataError(f"{file}: labels {list(names)} must name at least one class, each once.")
    return tuple(chosen)


def check(data: DataList, what: str = "the data list") -> None:
    """Refuse a list that cannot be learned from honestly.

    Raises:
        DataError: no scans, an image that is listed twice, or a patient in two sections.
    """
    if not any(data.section(s) for s in SECTIONS):
        raise DataError(f"{what} is empty; list at least one scan under training.")
    first: dict[Path, str] = {}
    homes: dict[str, str] = {}
    for section in SECTIONS:
        for entry in data.section(section):
            image = entry.image.resolve()
            if image in first:
                raise DataError(f"{what} lists {entry.image} twice ({first[image]} and {section}); list it once.")
            first[image] = section
            home = homes.setdefault(entry.patient, section)
            if home != section:
                raise DataError(
                    f"{what} has patient {entry.patient} in {home} and in {section}; all scans of one patient belong "
                    "together."
                )


def split_by_patient(
    entries: Sequence[Entry], share: float, seed: int = 0
) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Set patients aside for validation, site by site, so that each site keeps its share.

    Args:
        entries: scans.
        share: share of patients, 0 (none) to below 1; at least one patient where it is above 0.
        seed: of the draw; the same patients come out whatever the order of the list.

    Returns:
        Training and validation entries, in the list's order.

    Raises:
        DataError: a share out of range, or fewer than two patients.
    """
    if not 0 <= share < 1:
        raise DataError(f"The validation share is {share}; it must be 0 or more and below 1.")
    patients = {entry.patient: entry.site for entry in entries}
    if share == 0:
        return tuple(entries), ()
    if len(patients) < 2:
        raise DataError("One patient cannot be split; list scans of at least two patients or name validation scans.")
    rng = np.random.default_rng(seed)
    drawn = dict(zip(sorted(patients), rng.random(len(patients)), strict=True))
    wanted = max(1, round(share * len(patients)))
    by_site: dict[str, list[str]] = {}
    for patient in sorted(patients, key=lambda p: drawn[p]):
        by_site.setdefault(patients[patient], []).append(patient)
    # Sites take turns by the part of their patients that is chosen already.
    places = [((i + drawn[p]) / len(own), p) for own in by_site.values() for i, p in enumerate(own)]
    chosen = {patient for _, patient in sorted(places)[: min(wanted, len(patients) - 1)]}
    return tuple(e for e in entries if e.patient not in chosen), tuple(e for e in entries if e.patient in chosen)


def write_data_list(path: str | Path, data: DataList) -> None:
    """Write a list that :func:`read_data_list` and MONAI's ``load_decathlon_datalist`` read.

    Raises:
        OutputError: the file system refuses.
    """
    folder = Path(path).resolve().parent
    content: dict[str, Any] = {"name": data.name, "tensorImageSize": "3D", "modality": {"0": "CT"}}
    if set(data.classes) == {ANY_HEAD}:
        names = ("background", *data.classes[ANY_HEAD])
        content["labels"] = {str(value): name for value, name in enumerate(names)}
    elif data.classes:
        content["labels"] = {head: ["background", *names] for head, names in data.classes.items()}
    content |= {f"num{s.capitalize()}": len(data.section(s)) for s in ("training", "test")}
    content |= {section: list(_rows(data.section(section), folder)) for section in SECTIONS if data.section(section)}
    write_json(path, content)


def _rows(entries: Iterable[Entry], folder: Path) -> Iterable[dict[str, Any]]:
    for entry in entries:
        row: dict[str, Any] = {"image": _relative(entry.image, folder)}
        row |= {head: _relative(file, folder) for head, file in entry.labels.items()}
        if entry.landmarks is not None:
            row["landmarks"] = _relative(entry.landmarks, folder)
        if entry.labelled is not None:
            row["labels"] = list(entry.labelled)
        yield {**row, "patient": entry.patient, **({"site": entry.site} if entry.site else {})}


def _relative(path: Path, folder: Path) -> str:
    """A path from the list's folder, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), folder)).as_posix()
