"""Digital patients as files: NIfTI scans at clinical resolution, label maps, landmarks and a MONAI data list."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cardiac_ct_fm.anatomy import HEADS, LANDMARKS
from cardiac_ct_fm.cohort.case import Case
from cardiac_ct_fm.cohort.image import field_of_view
from cardiac_ct_fm.cohort.sites import draw_site_case, observed_landmarks, site, site_scans
from cardiac_ct_fm.cohort.whole_scan import acquire_scan
from cardiac_ct_fm.errors import ConfigError, OutputError
from cardiac_ct_fm.files import atomic_folder, write_json
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_io import save_label_map
from cardiac_ct_fm.landmark_io import Landmark, write_landmarks, write_mitk, write_slicer
from cardiac_ct_fm.volume_io import Volume

SLAB, FADE = 12, 4
"""Slices by which the rendered slab moves on, and over which one slab fades into the next; 512×512×16 need about
1.2 GB. Multiples of 4, the blocks in which a slab is rendered (``raster.CELL``)."""
NOISE = 18
"""Sets a scan's generator apart from that of its patient's surroundings (:func:`cohort.case.case_of`)."""

SPACING_RANGE_MM: tuple[float, float] = (0.3, 4.0)
REACH_Z_MM: tuple[float, float] = (-100.0, 130.0)
"""How far below and above the heart's centre a scan reaches where the scanner does not end sooner."""

DESCRIPTION = "Digital patients of cardiac-ct-fm: no image of anybody, shapes of two real hearts."
"""In the data list; by it a list is known to be ours."""

LABEL_HEADS: tuple[str, ...] = ("heart", "calc", "coronaries")


@dataclass(frozen=True)
class Scan:
    """A rendered scan: the volume (int16 HU, RAS) and its label maps on the same grid."""

    volume: Volume
    labels: dict[str, npt.NDArray[np.uint8]]


def render_scan(
    case: Case, spacing_mm: float = 0.8, size: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Scan:
    """A whole scan of a patient.

    Args:
        case: the patient.
        spacing_mm: isotropic voxel size.
        size: pixels per row and column; as many as cover 205 mm (512 × 0.4 mm) when None.
        progress: called with (slices done, slices in all); each counts once in the body and once in the scanner.

    Returns:
        The scan; world coordinates are body mm, so the patient's landmarks fit as they are.

    Raises:
        ConfigError: spacing or size out of range.
    """
    low, high = SPACING_RANGE_MM
    if not low <= spacing_mm <= high:
        raise ConfigError(f"spacing is {spacing_mm} mm; digital scans are rendered at {low}…{high} mm.")
    pixels = size or int(np.ceil(205.0 / spacing_mm))
    if not 16 <= pixels <= 1024:
        raise ConfigError(f"size is {pixels} pixels; choose 16…1024.")
    bottom = max(REACH_Z_MM[0], case.scanner.z_range[0])
    top = min(REACH_Z_MM[1], case.scanner.z_range[1])
    slices = max(8, int((top - bottom) / spacing_mm) // 8 * 8)  # whole blocks, see LOUD_CELL
    shape = (pixels, pixels, slices)
    grid = Grid.centred((0.0, 0.0, bottom + slices * spacing_mm / 2), spacing_mm, shape)
    done = progress or (lambda i, n: None)
    ideal, labels = _body(case, grid, lambda i: done(i, 2 * slices))
    x, y, z = (float(v) for v in grid.centre_ras)
    rng = torch.Generator().manual_seed(case.heart.patient.seed * 7919 + NOISE)
    hu = acquire_scan(ideal, spacing_mm, case.scanner, rng, (x, y, z), lambda i: done(slices + i, 2 * slices))
    facts = {"format": "digital", "patient_position": "HFS"}
    return Scan(Volume(hu, grid.affine, f"digital-{case.heart.patient.seed}", facts), labels)


def _body(
    case: Case, grid: Grid, progress: Callable[[int], None]
) -> tuple[npt.NDArray[np.int16], dict[str, npt.NDArray[np.uint8]]]:
    """The patient before the scanner: HU (X, Y, Z) within −1024…3500, and label maps.

    Slabs overlap and fade into each other. Parts of the body are interpolated from coarser points whose place
    depends on the slab, so thin walls and vessels would jump from one slab to the next otherwise.
    """
    nx, ny, slices = grid.shape
    ideal = np.zeros(grid.shape, np.int16, order="F")
    labels = {head: np.zeros(grid.shape, np.uint8, order="F") for head in LABEL_HEADS}
    rise = (torch.arange(FADE, device=case.heart.offsets.device) + 0.5) / FADE
    spacing, corner = float(grid.spacing[0]), torch.from_numpy(grid.world(np.zeros(3))).float()
    before = None
    for first in range(-FADE, slices, SLAB):
        centre = corner + spacing * 0.5 * torch.tensor([nx - 1, ny - 1, 2 * first + SLAB + FADE - 1])
        look = case.ideal(centre, spacing, (nx, ny, SLAB + FADE))
        place = (float(centre[0]), float(centre[1]), float(centre[2]))
        look = look.within(field_of_view(torch.ones_like(look.hu), spacing, case.scanner, place) > 0)
        hu = look.hu.clamp(-1024, 3500)
        if before is not None:
            hu[..., :FADE] = torch.lerp(before, hu[..., :FADE], rise)
        before = hu[..., SLAB:]
        low, high = max(0, first), min(slices, first + SLAB)
        ideal[..., low:high] = hu[..., low - first : high - first].round().to(torch.int16).cpu().numpy()
        # a label cannot fade: it comes from the slab that weighs more
        low, high = max(0, first + FADE // 2), min(slices, first + FADE // 2 + SLAB)
        for head in LABEL_HEADS:
            labels[head][..., low:high] = getattr(look, head)[..., low - first : high - first].cpu().numpy()
        progress(high)
    return ideal, labels


def write_cases(
    number: int,
    count: int,
    folder: str | Path,
    spacing_mm: float = 0.8,
    *,
    first: int = 0,
    test: int = 0,
    size: int | None = None,
    factor: float = 0.01,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Write patients of a digital hospital as a data set.

    Each case is a folder with ``image.nii.gz``, the label maps that the site has (the truth of all structures lies
    in ``truth/``), and the points as the site's observer clicked them; ``datalist.json`` is MONAI's Decathlon list.
    Where there is one of digital patients already, those that are not written again stay in it as they are.

    Args:
        number: site 1…8.
        count: patients.
        folder: written whole or not at all; files of other cases stay.
        spacing_mm: isotropic voxel size.
        first: index of the first patient at the site.
        test: how many of the patients, the last ones, are listed under ``test`` instead of ``training``.
        size: see :func:`render_scan`.
        factor: share of the paper's numbers, which says how many patients carry labels.
        progress: called with (case, slices done, slices in all).

    Returns:
        The path of ``datalist.json``.

    Raises:
        ConfigError: unknown site, bad count, test part, spacing or size.
        OutputError: the file system refuses, or ``datalist.json`` lists other scans than digital patients.
    """
    if count < 1 or first < 0:
        raise ConfigError(f"count is {count} and first is {first}; write at least 1 patient, from index 0 on.")
    if not 0 <= test <= count:
        raise ConfigError(f"test is {test}; it is part of the {count} patients: choose 0…{count}.")
    listing = Path(folder) / "datalist.json"
    _listed_before(listing, ())
    scans = site_scans(number, factor, least=first + count)[first : first + count]
    target = Path(folder)
    rows = []
    for scan in scans:
        case = draw_site_case(number, scan.seed)
        name = f"site{number}-{scan.seed}"
        rendered = render_scan(case, spacing_mm, size, progress and (lambda i, n, name=name: progress(name, i, n)))
        with atomic_folder(target / name) as temporary:
            row = _write_case(temporary, number, case, rendered, scan.labels)
        rows.append({key: f"{name}/{value}" if key != "labels" else value for key, value in row.items()})
    stay = _listed_before(listing, [str(row["image"]) for row in rows])
    training, tested = [*stay["training"], *rows[: count - test]], [*stay["test"], *rows[count - test :]]
    sites = sorted({int(str(row["image"]).removeprefix("site").partition("-")[0]) for row in [*training, *tested]})
    write_json(
        listing,
        {
            "name": ", ".join(f"digital site {n} ({site(n).name})" for n in sites),
            "description": DESCRIPTION,
            "labels": {head: ["background", *HEADS[head].classes] for head in HEADS},
            "numTraining": len(training),
            "numTest": len(tested),
            "training": training,
            "test": tested,
        },
    )
    return listing


def _listed_before(listing: Path, again: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """What a data list has under ``training`` and ``test`` besides the images that are written again."""
    if not listing.exists():
        return {"training": [], "test": []}
    try:
        old = json.loads(listing.read_text(encoding="utf-8"))
        if old["description"] != DESCRIPTION:
            raise ValueError("somebody else's list")
        return {key: [row for row in old[key] if row["image"] not in again] for key in ("training", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{listing} is no list of digital patients; write into another folder.") from error


def _write_case(
    folder: Path, number: int, case: Case, scan: Scan, labelled: tuple[str, ...]
) -> dict[str, str | list[str]]:
    """Write one case into an empty folder; the row for the data list, with names relative to the folder."""
    volume = scan.volume
    _save_image(folder / "image.nii.gz", volume)
    (folder / "truth").mkdir()
    for head, labels in scan.labels.items():
        names = {i + 1: n for i, n in enumerate(HEADS[head].classes)}
        save_label_map(folder / "truth" / f"{head}.nii.gz", labels, volume.grid, names)
    row: dict[str, str | list[str]] = {"image": "image.nii.gz", "heart": "truth/heart.nii.gz"}
    row["labels"] = ["heart", "coronaries", *labelled]
    if "calc" in labelled:
        row["calc"] = "truth/calc.nii.gz"
    row["coronaries"] = "truth/coronaries.nii.gz"
    truth = _points(volume, {n: case.heart.landmarks[n] for n in LANDMARKS})
    write_landmarks(folder / "truth" / "landmarks.json", truth, volume.grid)
    clicked = observed_landmarks(number, case)
    wanted = [n for head in ("hps", "ms") if head in labelled for n in HEADS[head].classes]
    if wanted:
        points = _points(volume, {n: clicked[n] for n in wanted})
        write_landmarks(folder / "landmarks.json", points, volume.grid)
        write_slicer(folder / "landmarks.mrk.json", points)
        write_mitk(folder / "landmarks.mps", points)
        row["landmarks"] = "landmarks.json"
    return row


def _points(volume: Volume, at: dict[str, torch.Tensor]) -> list[Landmark]:
    """Landmarks in the scan; a point that the scan does not show is not found."""
    points = []
    for name, position in at.items():
        x, y, z = (float(v) for v in position)
        shown = bool(volume.grid.contains(np.array([x, y, z])))
        points.append(Landmark(name, shown, (x, y, z) if shown else None, 1.0 if shown else 0.0))
    return points


def _save_image(path: Path, volume: Volume) -> None:
    """A compressed NIfTI of int16 HU with both affines set."""
    import nibabel as nib

    image = nib.Nifti1Image(volume.data, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, 1)
    image.set_qform(volume.affine, 1)
    nib.save(image, path)
