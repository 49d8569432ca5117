"""A site's scans, digital or real: draw an image and the labels that it has on any grid. Nothing here leaves a site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os.path import relpath
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS, HEART_LABELS, HINGE_POINTS
from cardiac_ct_fm.cohort.case import LANDMARK_RADIUS_MM, Case
from cardiac_ct_fm.cohort.sites import draw_site_case, observed_landmarks
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.label_io import load_label_map
from cardiac_ct_fm.label_resampling import resample_label_map
from cardiac_ct_fm.landmark_io import Landmark, read_landmarks
from cardiac_ct_fm.preprocess import resample_hu
from cardiac_ct_fm.volume_io import Volume, load_volume

AIR_HU = -1024.0
"""Hounsfield units outside of a scan."""

CASES_IN_MEMORY = 32
"""Digital patients kept ready per site; building one takes about 0.6 s."""


class Scan(ABC):
    """One scan of a site.

    Attributes:
        patient: the site's own name of the patient; splits go by it. Never sent.
        labels: heads that an expert (or, for the heart, the site's segmentation) has labelled.
    """

    patient: str
    labels: frozenset[str]

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the scan at its site, also among several of one patient. Never sent."""

    @property
    @abstractmethod
    def heart_centre(self) -> FloatArray:
        """Middle of the heart, RAS mm."""

    @property
    @abstractmethod
    def root_centre(self) -> FloatArray:
        """Middle of the hinge points, or of the border of left ventricle and aorta, RAS mm."""

    @abstractmethod
    def draw(self, grid: Grid, heads: Iterable[str], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Image and labels on an axis-parallel grid.

        Args:
            grid: where.
            heads: wanted label types; those that the scan lacks are left out.
            seed: of the image noise (digital scans only).

        Returns:
            HU (X, Y, Z) float32 and per labelled head a label map (X, Y, Z) uint8.
        """

    @abstractmethod
    def points(self, head: str) -> dict[str, Landmark]:
        """The labelled points of a landmark head; those that the scan does not show are missing."""


def spheres(points: Mapping[str, Landmark], names: Iterable[str], grid: Grid) -> Tensor:
    """Landmarks as the network learns them: spheres of 4 mm, the nearer point where two overlap.

    Returns:
        (X, Y, Z) uint8; missing points are not drawn.
    """
    where = torch.from_numpy(grid.points())
    best = torch.full(grid.shape, LANDMARK_RADIUS_MM)
    result = torch.zeros(grid.shape, dtype=torch.uint8)
    for value, name in enumerate(names, start=1):
        point = points[name].ras_mm
        if point is not None:
            distance = (where - torch.tensor(point, dtype=where.dtype)).norm(dim=-1)
            nearer = distance <= best
            result[nearer] = value
            best = torch.minimum(best, distance)
    return result


class DigitalScan(Scan):
    """A patient of a digital hospital, drawn on demand, with points as the hospital's observer clicked them.

    Args:
        site: number of the hospital, 1…8.
        seed: of the patient.
        labels: label types that are handed out; the cohort knows all of them.
        cases: patients kept ready, shared by a site's scans.
    """

    def __init__(self, site: int, seed: int, labels: frozenset[str], cases: OrderedDict[int, Case]) -> None:
        self.patient, self.labels = f"digital-{seed}", labels
        self._site, self._seed, self._cases = site, seed, cases

    @property
    def key(self) -> str:
        """The patient, who has one scan."""
        return self.patient

    @property
    def case(self) -> Case:
        """The patient."""
        if self._seed not in self._cases:
            self._cases[self._seed] = draw_site_case(self._site, self._seed)
            while len(self._cases) > CASES_IN_MEMORY:
                self._cases.popitem(last=False)
        self._cases.move_to_end(self._seed)
        return self._cases[self._seed]

    @property
    def heart_centre(self) -> FloatArray:
        """The origin of body coordinates."""
        return np.zeros(3)

    @property
    def root_centre(self) -> FloatArray:
        """Middle of the hinge points, which the cohort knows.

        A real scan without them goes by the border of left ventricle and aorta, some mm off; windows are aimed with a
        spread of 6 to 18 mm around it.
        """
        points = self.case.heart.landmarks
        middle: FloatArray = torch.stack([points[k] for k in HINGE_POINTS]).mean(0).cpu().double().numpy()
        return middle

    def draw(self, grid: Grid, heads: Iterable[str], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Scan.draw`."""
        centre, spacing = torch.from_numpy(grid.centre_ras).float(), grid.spacing[0]
        hu, look = self.case.look(centre, spacing, grid.shape, seed)
        labels: dict[str, Tensor] = {}
        for head in self.labels.intersection(heads):
            if HEADS[head].kind == "landmarks":
                labels[head] = spheres(self.points(head), HEADS[head].classes, grid)
            else:
                labels[head] = getattr(look, head)
        return hu, labels

    def points(self, head: str) -> dict[str, Landmark]:
        """See :meth:`Scan.points`."""
        clicked = observed_landmarks(self._site, self.case)
        found = {}
        for name in HEADS[head].classes:
            x, y, z = (float(v) for v in clicked[name])
            shown = self.case.shows(self.case.heart.landmarks[name])
            found[name] = Landmark(name, True, (x, y, z), 1.0) if shown else Landmark.missing(name)
        return found


@dataclass
class FileScan(Scan):
    """A scan of a data list; the image is read when it is needed and the last one stays in memory.

    Attributes:
        image: NIfTI file or DICOM folder.
        maps: segmentation head → label map file.
        landmarks: landmark head → file that :func:`cardiac_ct_fm.landmark_io.read_landmarks` reads.
        folder: of the data list; keys rest on the image's place in it, so that all data may move together.
    """

    patient: str
    image: Path
    maps: dict[str, Path] = field(default_factory=dict)
    landmarks: dict[str, Path] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def key(self) -> str:
        """Patient and image."""
        return f"{self.patient} {Path(relpath(self.image, self.folder)).as_posix()}"

    @cached_property
    def _points(self) -> dict[str, Landmark]:
        found: dict[str, Landmark] = {}
        for head, file in self.landmarks.items():
            found |= {name: point for name, point in read_landmarks(file).items() if name in HEADS[head].classes}
        return found

    @cached_property
    def labels(self) -> frozenset[str]:  # type: ignore[override]  # read from the files on first use
        """Heads with a label map, and landmark heads of which the file holds at least one point."""
        heads = [h for h, spec in HEADS.items() if spec.kind == "landmarks"]
        marked = [h for h in heads if any(self._points[c].found for c in HEADS[h].classes if c in self._points)]
        return frozenset([*self.maps, *marked])

    @cached_property
    def _centres(self) -> tuple[FloatArray, FloatArray]:
        """Heart and root."""
        hinges = [self._points[k].ras_mm for k in HINGE_POINTS if k in self._points and self._points[k].found]
        root = np.mean(np.array(hinges, dtype=np.float64), axis=0) if len(hinges) == len(HINGE_POINTS) else None
        if "heart" in self.maps:
            labels, grid, _ = load_label_map(self.maps["heart"])
            heart = grid.world(np.argwhere(labels > 0).mean(0)) if (labels > 0).any() else None
            if root is None and heart is not None:
                border = _touching(labels, HEART_LABELS["LV"], HEART_LABELS["Aorta"])
                root = grid.world(border.mean(0)) if len(border) else None
        else:
            heart = root
        if heart is None or root is None:
            raise DataError(
                f"{self.image}: neither hinge points nor a heart label map with LV and Aorta say where the root is; "
                "add one of the two to the data list."
            )
        return heart, root

    @property
    def heart_centre(self) -> FloatArray:
        """Middle of the heart label map, or the root where there is none.

        Raises:
            DataError: neither is known.
        """
        return self._centres[0]

    @property
    def root_centre(self) -> FloatArray:
        """Middle of the hinge points, or of the border of left ventricle and aorta.

        Raises:
            DataError: neither is known.
        """
        return self._centres[1]

    def draw(self, grid: Grid, heads: Iterable[str], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`Scan.draw`; a real scan has its own noise and needs no seed."""
        labels = {}
        for head in self.labels.intersection(heads):
            if HEADS[head].kind == "landmarks":
                labels[head] = spheres(self.points(head), HEADS[head].classes, grid)
            else:
                values, own, _ = load_label_map(self.maps[head])
                labels[head] = torch.from_numpy(np.ascontiguousarray(resample_label_map(values, own, grid)))
        return resample_hu(_volume(self.image), grid, AIR_HU), labels

    def points(self, head: str) -> dict[str, Landmark]:
        """See :meth:`Scan.points`."""
        return {name: self._points.get(name, Landmark.missing(name)) for name in HEADS[head].classes}


_LAST: dict[str, tuple[Path, Volume]] = {}
"""The scan that was read last: its windows are drawn one after the other."""


def _volume(path: Path) -> Volume:
    if "scan" not in _LAST or _LAST["scan"][0] != path:
        _LAST["scan"] = (path, load_volume(path))
    return _LAST["scan"][1]


def _touching(labels: np.ndarray, first: int, second: int) -> np.ndarray:
    """Voxels (N, 3) of ``second`` with a neighbour of ``first`` along one axis."""
    near = np.zeros(labels.shape, bool)
    one = labels == first
    for axis in range(3):
        for step in (-1, 1):
            moved = np.roll(one, step, axis)
            edge = [slice(None)] * 3
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            moved[tuple(edge)] = False
            near |= moved
    return np.argwhere(near & (labels == second))
