"""Held-out digital patients as whole scans with references, never pre-centred, kept on disk where wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.cohort.case import draw_case
from cardiac_ct_fm.errors import ConfigError, DataError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark
from cardiac_ct_fm.training.evaluate import ScanSource
from cardiac_ct_fm.training.scans import LabelledScan
from cardiac_ct_fm.volume_io import Volume

HELD_OUT_SEEDS = range(1_000_000)
"""Seeds of digital patients that are only ever evaluated on; trainings draw theirs from 10,000,000 on."""

SCAN_SPACING_MM = 1.0
SCAN_SHAPE = (192, 192, 192)
"""A held-out scan: heart, root and ascending aorta, about 20 mm around them, at the spacing of the finest look."""

SCAN_SHIFT_MM = 12.0
"""The middle of a held-out scan lies up to this far from the middle of the heart, along each axis."""


_SCAN_FACTS = {"format": "digital", "patient_position": "HFS"}

LABEL_HEADS = ("heart", "calc", "coronaries")


def digital_source(
    seeds: Sequence[int],
    *,
    strength: float = 1.0,
    spacing_mm: float = SCAN_SPACING_MM,
    shape: tuple[int, int, int] = SCAN_SHAPE,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> ScanSource:
    """Held-out digital patients for :func:`~cardiac_ct_fm.training.evaluate.evaluate`.

    Args:
        seeds: of the patients.
        strength: dial of the domain randomisation.
        spacing_mm: isotropic voxel size.
        shape: of the scans.
        cache: folder that keeps rendered scans; None renders them anew.
        device: where they are rendered.

    Raises:
        ConfigError: a seed is not held out.
    """
    for seed in seeds:
        _check_held_out(seed)
    facts: dict[str, Any] = {"strength": strength, "spacing_mm": spacing_mm, "shape": list(shape)}

    def load(key: str) -> LabelledScan:
        seed = int(key.rsplit("-", 1)[1])
        file = (
            None if cache is None else cache / f"{key}-s{strength:g}-{spacing_mm:g}mm-{'x'.join(map(str, shape))}.npz"
        )
        if file is not None and file.exists():
            return _read(file)
        scan = digital_scan(seed, strength=strength, spacing_mm=spacing_mm, shape=shape, device=device)
        if file is not None:
            _write(file, scan)
        return scan

    return ScanSource("digital patients", tuple(f"digital-{seed:06d}" for seed in seeds), load, facts)


def digital_scan(
    seed: int,
    *,
    strength: float = 1.0,
    spacing_mm: float = SCAN_SPACING_MM,
    shape: tuple[int, int, int] = SCAN_SHAPE,
    device: torch.device | str = "cpu",
) -> LabelledScan:
    """A held-out digital patient as a whole scan: image, label maps and points, never pre-centred.

    Args:
        seed: of the patient, the scanner's noise and the scan's place.
        strength: dial of the domain randomisation.
        spacing_mm: isotropic voxel size.
        shape: of the scan.
        device: where it is rendered.

    Raises:
        ConfigError: the seed is not held out, or it does not show a patient.
    """
    _check_held_out(seed)
    case = draw_case(seed, strength=strength, device=device)
    centre = np.random.default_rng([seed, 17]).uniform(-SCAN_SHIFT_MM, SCAN_SHIFT_MM, 3)
    hu, look = case.look(torch.from_numpy(centre).float(), spacing_mm, shape, noise_seed=seed)
    grid = Grid.centred(centre, spacing_mm, shape)
    data = hu.round().clamp(-32768, 32767).to(torch.int16).cpu().numpy()
    points = {
        name: _point(name, point.double().cpu().numpy(), bool(case.shows(point)), grid)
        for name, point in case.heart.landmarks.items()
    }
    return LabelledScan(
        Volume(data, grid.affine, f"digital patient {seed}", dict(_SCAN_FACTS)),
        name=f"digital-{seed:06d}",
        patient=f"digital-{seed:06d}",
        landmarks={
            head: {name: points[name] for name in HEADS[head].classes}
            for head in HEADS
            if HEADS[head].kind == "landmarks"
        },
        label_maps={name: getattr(look, name).cpu().numpy() for name in LABEL_HEADS},
        classes={name: HEADS[name].classes for name in LABEL_HEADS},
        facts={"sex": case.heart.patient.sex, "template": case.heart.patient.template},
    )


def _point(name: str, ras: np.ndarray[Any, Any], shown: bool, grid: Grid) -> Landmark:
    """A reference point, not found where the scan does not show it."""
    if not (shown and bool(grid.contains(ras))):
        return Landmark.missing(name)
    x, y, z = (float(v) for v in ras)
    return Landmark(name, True, (x, y, z), 1.0)


def _check_held_out(seed: int) -> None:
    if seed not in HELD_OUT_SEEDS:
        raise ConfigError(
            f"seed {seed} is not held out: 0…{HELD_OUT_SEEDS.stop - 1} are; patients beyond may have been trained on."
        )


def _write(file: Path, scan: LabelledScan) -> None:
    """Keep a rendered scan."""
    points = {h: {n: p.ras_mm for n, p in own.items()} for h, own in scan.landmarks.items()}
    about = json.dumps(
        {"name": scan.name, "landmarks": points, "facts": dict(scan.facts), "source": scan.volume.source}
    )
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
            volume = Volume(stored["hu"], stored["affine"], about["source"], dict(_SCAN_FACTS))
            maps = {head: stored[head] for head in LABEL_HEADS}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} is damaged ({error}); remove it and it is rendered again.") from error
    landmarks = {
        h: {
            n: Landmark(n, at is not None, None if at is None else (at[0], at[1], at[2]), float(at is not None))
            for n, at in own.items()
        }
        for h, own in about["landmarks"].items()
    }
    classes = {head: HEADS[head].classes for head in LABEL_HEADS}
    return LabelledScan(volume, about["name"], about["name"], "", landmarks, maps, classes, about["facts"])
