"""Held-out digital patients under one changed condition at a time: the patient or the scan changes, never the picture.

Everything else of a patient stays, the place of the scan and, on voxels of the same size, the grain of the noise
included. The unchanged scan is the patient as the cohort draws him with what would blur a curve taken away: native
voxels of at most the scan's 1 mm, no drawn field of view, no random warp of the HU scale, three free cusps, neither
stent nor lead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from cardiac_ct_fm.anatomy import HEADS, HEART_LABELS
from cardiac_ct_fm.cohort.case import Case, case_of
from cardiac_ct_fm.cohort.heart import DigitalHeart
from cardiac_ct_fm.cohort.identity import cohort_sha256
from cardiac_ct_fm.cohort.implants import draw_implants
from cardiac_ct_fm.cohort.patient import Patient, draw_patient
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import CHAMBERS
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.training.scans import LabelledScan
from cardiac_ct_fm.volume_io import Volume

SPACING_MM = 1.0
"""Voxels of the unchanged scan: the spacing of the finest look."""

STRENGTH = 0.7
"""Dial of the domain randomisation: that of the digital hospitals, with which ``docs/heldout_tiny.txt`` was made."""

CENTRE_RAS = (-5.0, -6.0, 10.0)
EXTENT_MM = (168.0, 160.0, 176.0)
"""Middle and size of the scans, body mm: held-out patients 0…9 with all chambers and the aorta up to the arch."""

WHOLE_MM = (-400.0, 400.0)
"""A scan's lowest and highest slice where the cohort cuts nothing off (:mod:`cardiac_ct_fm.cohort.image`)."""

UNENHANCED_HU = 40.0
"""Blood without contrast: in healthy people above 38 HU (women) and 39 HU (men) in left ventricle and aorta (spectral
CT of 522 patients, European Radiology, PMC8128794)."""

MYOCARDIUM_BELOW_HU = 60.0
"""Muscle takes up less contrast than the left ventricle's blood by this at least, as in :mod:`cohort.patient`."""

IMPLANT_SEEDS = 1_000_000_000
"""Implants are drawn from seeds above this, far from all patients', until one has what is wanted."""

MAPS = ("heart", "calc")

FACTS = {"format": "digital", "patient_position": "HFS"}


@dataclass(frozen=True)
class Condition:
    """What is changed.

    Attributes:
        title: for people; axis: what its levels are.
        levels: that are looked at; unchanged: the level of the unchanged scan, None where patients differ in it.
    """

    title: str
    axis: str
    levels: tuple[float, ...]
    unchanged: float | None = None


CONDITIONS: dict[str, Condition] = {
    "noise": Condition("Noise", "times the scan's own", (2, 3, 4), 1),
    "spacing": Condition("Voxel size", "mm", (0.5, 2, 3, 5), 1),
    "contrast": Condition("Contrast", "HU in the aorta", (100, 200, 400, 800)),
    "rotation": Condition("Rolled onto the left side", "degrees", (15, 30, 45), 0),
    "tilt": Condition("Tilted backward", "degrees", (15, 30, 45), 0),
    "below": Condition("Cut off from below", "% of the heart missing", (15, 30, 45), 0),
    "above": Condition("Cut off from above", "% of the heart missing", (15, 30, 45), 0),
    "stent": Condition("Coronary stent", "", (1,), 0),
    "leads": Condition("Pacemaker lead", "", (1,), 0),
    "bicuspid": Condition("Bicuspid valve", "", (1,), 0),
}


@dataclass(frozen=True)
class Setting:
    """One level of one condition."""

    condition: str
    level: float

    @property
    def name(self) -> str:
        """Short and unique, for folders: ``noise-2``, ``stent``."""
        present = self.condition in CONDITIONS and CONDITIONS[self.condition].axis
        return f"{self.condition}-{self.level:g}" if present else self.condition


UNCHANGED = Setting("unchanged", 0)


def settings(conditions: Iterable[str]) -> list[Setting]:
    """The unchanged scan, which all conditions share, and every level of the conditions."""
    return [UNCHANGED, *(Setting(name, level) for name in conditions for level in CONDITIONS[name].levels)]


def scan(
    seed: int,
    setting: Setting,
    strength: float = STRENGTH,
    spacing_mm: float = SPACING_MM,
    cache: Path | None = None,
) -> LabelledScan:
    """One patient under one condition.

    Args:
        seed: of the patient; held-out ones of no site are :func:`~cardiac_ct_fm.training.digital.held_out_seeds`.
        setting: the condition.
        strength: dial of the domain randomisation.
        spacing_mm: voxel size where it is not what changes.
        cache: folder that keeps rendered scans; None renders them anew.

    Raises:
        DataError: a file of the cache is damaged.
    """
    if setting.condition in ("rotation", "tilt"):
        turn = Rotation.from_euler("z" if setting.condition == "rotation" else "x", setting.level, degrees=True)
        return turned(_unchanged(seed, strength, spacing_mm, cache), turn.as_matrix())
    if setting.condition in ("below", "above"):
        whole = _unchanged(seed, strength, spacing_mm, cache)
        return cut_off(whole, setting.level, below=setting.condition == "below")
    if setting == UNCHANGED:
        return _unchanged(seed, strength, spacing_mm, cache)
    return _taken(seed, setting, strength, spacing_mm, cache)


@lru_cache(maxsize=2)
def _unchanged(seed: int, strength: float, spacing_mm: float, cache: Path | None) -> LabelledScan:
    """The unchanged scan, kept in memory (19 MB at 1 mm): turned and cut scans are made of it."""
    return _taken(seed, UNCHANGED, strength, spacing_mm, cache)


def case_under(seed: int, setting: Setting, strength: float, spacing_mm: float) -> Case:
    """The patient and his scanner, changed before anything is rendered; turns and cuts leave them unchanged."""
    patient = draw_patient(seed, strength=strength)
    patient = replace(patient, root=replace(patient.root, fused=setting.condition == "bicuspid"))
    if setting.condition == "contrast":
        patient = with_contrast(patient, setting.level)
    drawn = case_of(patient, seed, strength=strength)
    heart = replace(drawn.heart, implants=replace(drawn.heart.implants, stents=(), leads=()))
    if setting.condition in ("stent", "leads"):
        heart = with_implant(heart, "stents" if setting.condition == "stent" else "leads")
    louder = setting.level if setting.condition == "noise" else 1.0
    own = drawn.scanner
    scanner = replace(
        own,
        pixel_mm=min(own.pixel_mm, spacing_mm),
        slice_mm=min(own.slice_mm, spacing_mm),
        noise_hu=own.noise_hu * louder,
        texture_hu=own.texture_hu * louder,
        photon_starvation=own.photon_starvation * louder,
        contrast=((), ()),
        fov_shape="none",
        z_range=WHOLE_MM,
    )
    return replace(drawn, heart=heart, scanner=scanner)


def with_contrast(patient: Patient, aorta_hu: float) -> Patient:
    """More or less iodine in all blood, so that the aorta has the wanted HU; muscle follows as the cohort draws it."""
    factor = (aorta_hu - UNENHANCED_HU) / (patient.blood["Aorta"] - UNENHANCED_HU)
    blood = {name: UNENHANCED_HU + factor * (hu - UNENHANCED_HU) for name, hu in patient.blood.items()}
    muscle = min(patient.tissue["myo"], blood["LV"] - MYOCARDIUM_BELOW_HU)
    return replace(patient, blood=blood, tissue=patient.tissue | {"myo": muscle})


def with_implant(heart: DigitalHeart, kind: str) -> DigitalHeart:
    """The heart with the first ``stents`` or ``leads`` that the cohort draws for it."""
    anatomy = (heart.patient.template, heart.coronaries, heart.tubes, heart.shape.scale)
    drawn = (draw_implants(seed, *anatomy) for seed in count(IMPLANT_SEEDS + 1000 * heart.patient.seed))
    tubes = next(own for implants in drawn if (own := getattr(implants, kind)))
    return replace(heart, implants=replace(heart.implants, **{kind: tubes}))


def _taken(seed: int, setting: Setting, strength: float, spacing_mm: float, cache: Path | None) -> LabelledScan:
    """The patient's scan with its references, from the cache where it is there already."""
    voxel = setting.level if setting.condition == "spacing" else spacing_mm
    case = case_under(seed, setting, strength, voxel)
    shape = (round(EXTENT_MM[0] / voxel), round(EXTENT_MM[1] / voxel), round(EXTENT_MM[2] / voxel))
    file = (
        None
        if cache is None
        else cache / f"digital-{seed}-{strength:g}-{voxel:g}mm-{setting.name}-{cohort_sha256()[:12]}.npz"
    )
    if file is not None and file.exists():
        kept = _read(file, shape)
    else:
        image, look = case.look(torch.tensor(CENTRE_RAS), voxel, shape, noise_seed=seed)
        kept = {"hu": image.round().to(torch.int16).numpy(), **{name: getattr(look, name).numpy() for name in MAPS}}
        if file is not None:
            with atomic_write(file) as temporary, temporary.open("wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **kept)
    key = f"digital-{seed}"
    volume = Volume(kept["hu"], Grid.centred(CENTRE_RAS, voxel, shape).affine, key, dict(FACTS))
    points = {name: point.double().numpy() for name, point in case.heart.landmarks.items()}
    return LabelledScan(
        volume,
        name=key,
        patient=key,
        landmarks=_shown(points, volume.grid),
        label_maps={name: kept[name] for name in MAPS},
        classes={name: HEADS[name].classes for name in MAPS},
    )


def _read(file: Path, shape: tuple[int, int, int]) -> dict[str, npt.NDArray[Any]]:
    """Image and label maps of the cache.

    Raises:
        DataError: the file is damaged or another scan's.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            kept = {name: stored[name] for name in ("hu", *MAPS)}
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise DataError(f"{file} is damaged ({error}); remove it and it is rendered again.") from error
    if any(array.shape != shape for array in kept.values()):
        raise DataError(f"{file} holds a scan of {kept['hu'].shape}, not {shape}; remove it and it is rendered again.")
    return kept


def _shown(points: dict[str, npt.NDArray[np.float64]], grid: Grid) -> dict[str, dict[str, Landmark]]:
    """True points by head; one outside of the scan is not found."""
    marks = {
        name: Landmark(name, True, (ras[0], ras[1], ras[2]), 1.0) for name, ras in points.items() if grid.contains(ras)
    }
    return {
        head: {name: marks.get(name, Landmark.missing(name)) for name in spec.classes}
        for head, spec in HEADS.items()
        if spec.kind == "landmarks"
    }


def _points(taken: LabelledScan) -> dict[str, npt.NDArray[np.float64]]:
    """Positions (3,) of the points that a scan shows."""
    return {n: np.array(p.ras_mm) for own in taken.landmarks.values() for n, p in own.items() if p.ras_mm is not None}


def turned(taken: LabelledScan, axes: npt.NDArray[np.float64]) -> LabelledScan:
    """The same voxels with an oblique affine: the patient and the scan's grid turned together about the heart's middle.

    Args:
        taken: a scan.
        axes: (3, 3) rotation of the world.
    """
    turn = np.eye(4)
    turn[:3, :3] = axes
    volume = replace(taken.volume, affine=turn @ taken.volume.affine)
    points = {name: axes @ ras for name, ras in _points(taken).items()}
    return replace(taken, volume=volume, landmarks=_shown(points, volume.grid))


def cut_off(taken: LabelledScan, percent: float, *, below: bool) -> LabelledScan:
    """The same scan with fewer slices, so that a share of the volume of chambers and muscle is missing.

    Args:
        taken: a scan, its slices from the feet to the head.
        percent: of the volume, 0…100, missing at least.
        below: whether slices are missing at the feet or at the head.
    """
    chambers = np.isin(taken.label_maps["heart"], [HEART_LABELS[name] for name in CHAMBERS]).sum(axis=(0, 1))
    missing = np.cumsum(chambers if below else chambers[::-1]) / chambers.sum()
    slices = int(np.searchsorted(missing, percent / 100)) + 1 if percent else 0
    first, last = (slices, len(chambers)) if below else (0, len(chambers) - slices)
    width, depth, _ = taken.volume.data.shape
    grid = taken.volume.grid.block((0, 0, first), (width, depth, last - first))
    volume = replace(taken.volume, data=taken.volume.data[:, :, first:last], affine=grid.affine)
    maps = {name: labels[:, :, first:last] for name, labels in taken.label_maps.items()}
    return replace(taken, volume=volume, label_maps=maps, landmarks=_shown(_points(taken), grid))
