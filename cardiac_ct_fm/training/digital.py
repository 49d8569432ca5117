"""Held-out digital patients as whole scans with references, never pre-centred, kept on disk where wanted."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.cohort.case import Case, draw_case
from cardiac_ct_fm.cohort.identity import cohort_sha256
from cardiac_ct_fm.cohort.sites import SITE_SEEDS, draw_site_case
from cardiac_ct_fm.cohort.sites import site as find_site
from cardiac_ct_fm.errors import ConfigError, DataError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.training.scans import LabelledScan, ScanSource
from cardiac_ct_fm.volume_io import Volume

HELD_OUT_FROM = 50_000
"""Patients of a digital site from this index on are only ever evaluated on.

A site trains on its first patients, at most 3001 (:mod:`cardiac_ct_fm.cohort.sites`); plain trainings draw patients of
no site, with seeds from 10,000,000 on. Patients of no site with seeds below :data:`SITE_SEEDS` are held out.
"""

SCAN_SPACING_MM = 1.0
SCAN_SHAPE = (192, 192, 192)
"""A held-out scan: heart, root and ascending aorta, about 20 mm around them, at the spacing of the finest look."""

SCAN_SHIFT_MM = 12.0
"""The middle of a held-out scan lies up to this far from the middle of the heart, along each axis."""


_PATIENTS = re.compile(r"(?:(\d+)(?:-(\d+))?/)?(\d+)(?:-(\d+))?")

_SCAN_FACTS = {"format": "digital", "patient_position": "HFS"}

LABEL_HEADS = ("heart", "calc", "coronaries")


def held_out_seeds(site: int = 0) -> range:
    """Seeds of digital patients that no training draws.

    Args:
        site: 1…8, or 0 for patients of no site.

    Raises:
        ConfigError: no such site.
    """
    if site == 0:
        return range(SITE_SEEDS)
    number = find_site(site).number
    return range(number * SITE_SEEDS + HELD_OUT_FROM, (number + 1) * SITE_SEEDS)


def held_out_patients(text: str) -> list[tuple[int, int]]:
    """Which held-out patients a text means, as pairs of site and seed.

    Args:
        text: ``0-19`` (patients of no site), ``3/0-19`` (the first twenty held-out patients of site 3), ``1-8/0-24``
            (of each of the sites), or several of these with commas.

    Raises:
        ConfigError: not such a text, no such site, or more patients than a site has.
    """
    chosen: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _PATIENTS.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"{part!r} names no digital patients; write 0-19, or 3/0-19 for those of site 3.")
        site, last_site, first, last = match.groups()
        indices = range(int(first), int(last or first) + 1)
        for number in range(int(site or 0), int(last_site or site or 0) + 1):
            seeds = held_out_seeds(number)
            if not indices or indices[-1] >= len(seeds):
                raise ConfigError(f"{part!r} asks for patients beyond 0…{len(seeds) - 1} of site {number}.")
            chosen += [(number, seeds[i]) for i in indices]
    return chosen


def digital_source(
    patients: str | Sequence[tuple[int, int]],
    *,
    strength: float | None = None,
    spacing_mm: float = SCAN_SPACING_MM,
    shape: tuple[int, int, int] = SCAN_SHAPE,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> ScanSource:
    """Held-out digital patients for :func:`~cardiac_ct_fm.training.evaluate.evaluate`.

    Args:
        patients: pairs of site (0: none) and seed, or a text for :func:`held_out_patients`.
        strength: dial of the domain randomisation; 1 for patients of no site and 0.7 for a site's when None.
        spacing_mm: isotropic voxel size.
        shape: of the scans.
        cache: folder that keeps rendered scans, those of this version of the cohort alone; None renders them anew.
        device: where they are rendered.

    Raises:
        ConfigError: a patient is not held out.
    """
    pairs = held_out_patients(patients) if isinstance(patients, str) else list(patients)
    for number, seed in pairs:
        if seed not in held_out_seeds(number):
            raise ConfigError(
                f"Patient {seed} of site {number} is not held out: seeds {held_out_seeds(number).start} to "
                f"{held_out_seeds(number).stop - 1} are; others may have been trained on."
            )
    by_key = {patient_key(number, seed): (number, seed) for number, seed in pairs}
    cohort = cohort_sha256()
    facts: dict[str, Any] = {"cohort": cohort, "strength": strength, "spacing_mm": spacing_mm, "shape": list(shape)}
    dial = "default" if strength is None else f"{strength:g}"
    ending = f"{dial}-{spacing_mm:g}mm-{'x'.join(map(str, shape))}-{cohort[:12]}.npz"

    def load(key: str) -> LabelledScan:
        number, seed = by_key[key]
        file = None if cache is None else cache / f"{key}-{ending}"
        if file is not None and file.exists():
            return _read(file)
        scan = digital_scan(seed, number, strength=strength, spacing_mm=spacing_mm, shape=shape, device=device)
        if file is not None:
            _write(file, scan)
        return scan

    return ScanSource("digital patients", tuple(by_key), load, facts)


def digital_scan(
    seed: int,
    site: int = 0,
    *,
    strength: float | None = None,
    spacing_mm: float = SCAN_SPACING_MM,
    shape: tuple[int, int, int] = SCAN_SHAPE,
    device: torch.device | str = "cpu",
) -> LabelledScan:
    """A digital patient as a whole scan: image, label maps and true points, never pre-centred.

    Args:
        seed: of the patient, the scanner's noise and the scan's place.
        site: 1…8, or 0 for a patient of no site.
        strength: dial of the domain randomisation; 1 for patients of no site and 0.7 for a site's when None.
        spacing_mm: isotropic voxel size.
        shape: of the scan.
        device: where it is rendered.

    Raises:
        ConfigError: no such site, or a parameter out of range.
    """
    case = held_out_case(seed, site, strength=strength, device=device)
    centre = np.random.default_rng([seed, 17]).uniform(-SCAN_SHIFT_MM, SCAN_SHIFT_MM, 3)
    return labelled_scan(case, seed, site, centre, spacing_mm, shape)


def held_out_case(
    seed: int, site: int = 0, *, strength: float | None = None, device: torch.device | str = "cpu"
) -> Case:
    """The patient; arguments and errors as in :func:`digital_scan`."""
    dial = {} if strength is None else {"strength": strength}
    return draw_site_case(site, seed, device=device, **dial) if site else draw_case(seed, None, device=device, **dial)


def labelled_scan(
    case: Case, seed: int, site: int, centre: FloatArray, spacing_mm: float, shape: tuple[int, int, int]
) -> LabelledScan:
    """What the scanner sees of a patient on one grid, with its references.

    Args:
        case: the patient.
        seed: of the patient and the scanner's noise.
        site: 1…8, or 0.
        centre: middle of the grid, body mm (3,).
        spacing_mm: isotropic voxel size.
        shape: of the grid.
    """
    hu, look = case.look(torch.from_numpy(centre).float(), spacing_mm, shape, noise_seed=seed)
    grid = Grid.centred(centre, spacing_mm, shape)
    data = hu.round().clamp(-32768, 32767).to(torch.int16).cpu().numpy()
    points = {
        name: _point(name, point.double().cpu().numpy(), bool(case.shows(point)), grid)
        for name, point in case.heart.landmarks.items()
    }
    key = patient_key(site, seed)
    patient = case.heart.patient
    return LabelledScan(
        Volume(data, grid.affine, key, dict(_SCAN_FACTS)),
        name=key,
        patient=key,
        site=f"site{site}" if site else "",
        landmarks={h: {n: points[n] for n in s.classes} for h, s in HEADS.items() if s.kind == "landmarks"},
        label_maps={name: getattr(look, name).cpu().numpy() for name in LABEL_HEADS},
        classes={name: HEADS[name].classes for name in LABEL_HEADS},
        facts={"sex": patient.sex, "template": patient.template, "bicuspid": patient.root.fused},
    )


def patient_key(site: int, seed: int) -> str:
    """Name of a held-out patient: ``digital-7``, or ``site3-350007``."""
    return f"site{site}-{seed}" if site else f"digital-{seed}"


def _point(name: str, ras: np.ndarray[Any, Any], shown: bool, grid: Grid) -> Landmark:
    """A reference point, not found where the scan does not show it."""
    if not (shown and bool(grid.contains(ras))):
        return Landmark.missing(name)
    x, y, z = (float(v) for v in ras)
    return Landmark(name, True, (x, y, z), 1.0)


def _write(file: Path, scan: LabelledScan) -> None:
    """Keep a rendered scan."""
    points = {h: {n: p.ras_mm for n, p in own.items()} for h, own in scan.landmarks.items()}
    about = json.dumps({"name": scan.name, "site": scan.site, "landmarks": points, "facts": dict(scan.facts)})
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        arrays = {"about": np.array(about), "hu": scan.volume.data, "affine": scan.volume.affine, **scan.label_maps}
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def _read(file: Path) -> LabelledScan:
    """A scan that :func:`_write` kept.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            volume = Volume(stored["hu"], stored["affine"], about["name"], dict(_SCAN_FACTS))
            maps = {head: stored[head] for head in LABEL_HEADS}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is damaged ({error}); remove it and it is rendered again.") from error
    landmarks = {
        h: {
            n: Landmark(n, at is not None, None if at is None else (at[0], at[1], at[2]), float(at is not None))
            for n, at in own.items()
        }
        for h, own in about["landmarks"].items()
    }
    classes = {head: HEADS[head].classes for head in LABEL_HEADS}
    return LabelledScan(volume, about["name"], about["name"], about["site"], landmarks, maps, classes, about["facts"])
