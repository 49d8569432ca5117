"""What a prediction is: landmarks, label maps and measurements of one scan, and the folder they are saved in.

Pictures and reports are drawn elsewhere and join :meth:`Prediction.write_files` as extra writers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm import anatomy
from cardiac_ct_fm.components import LabelMap, occupied_box
from cardiac_ct_fm.errors import DataError, UnknownNameError
from cardiac_ct_fm.files import atomic_folder, write_json
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_io import label_table, label_values, save_covered, save_label_map
from cardiac_ct_fm.landmark_io import Landmark, write_landmarks, write_mitk, write_slicer
from cardiac_ct_fm.volume_io import Volume

__all__ = ["RESULT_FILES", "LabelMap", "Landmark", "Measurement", "Prediction"]

COMPLETE_MARKER = "run.json"
"""Written last: a folder that holds it is complete."""

RESULT_FILES: tuple[str, ...] = (
    "segmentation.nii.gz",
    "segmentation.json",
    "covered.npz",
    "landmarks.json",
    "landmarks.mrk.json",
    "landmarks.mps",
    "measurements.json",
    "planning.mrk.json",
    "preview.png",
    "report.html",
    COMPLETE_MARKER,
)
"""Names that a folder of results may hold; an older run's are replaced or taken away, other files stay."""


@dataclass(frozen=True)
class Measurement:
    """One number of a planning report, or why there is none.

    Attributes:
        name: with its unit, for example ``annulus_area_mm2``.
        value: the number; ``None`` when it could not be made.
        unit: code in :data:`cardiac_ct_fm.anatomy.UNITS`.
        status: ``ok``, or in a word or two why the value is missing or to be doubted.
        uncertainty: one standard deviation in ``unit``, where it is known.
        details: whatever explains the value (method, threshold, parts).
    """

    name: str
    value: float | None
    unit: str
    status: str = "ok"
    uncertainty: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.unit not in anatomy.UNITS:
            raise UnknownNameError("unit", self.unit, sorted(anatomy.UNITS))
        if self.value is None and self.status == "ok":
            raise DataError(f"measurement {self.name} has no value; its status must say why.")
        for number in (self.value, self.uncertainty):
            if number is not None and not math.isfinite(number):
                raise DataError(f"measurement {self.name} is {number}; what is unknown is None, with a status.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as in ``measurements.json``."""
        return {
            "name": self.name,
            "value": None if self.value is None else float(self.value),
            "unit": self.unit,
            "status": self.status,
            "uncertainty": None if self.uncertainty is None else float(self.uncertainty),
            "details": dict(self.details),
        }


@dataclass
class Prediction:
    """Everything that was found in one scan.

    Attributes:
        volume: the scan.
        landmarks: name → point; every expected point is listed, found or not.
        label_maps: head → (X, Y, Z) uint8 on the scan's own grid; value ``i + 1`` is ``classes[head][i]``.
        classes: head → names of its classes.
        measurements: name → measurement.
        run: versions, weights, timings: whatever says how this came about.
        warnings: sentences for the user.
        plan: the geometry behind the measurements (:class:`cardiac_ct_fm.planning.Plan`), for pictures and reports;
            None before they are made.
    """

    volume: Volume
    landmarks: dict[str, Landmark] = field(default_factory=dict)
    label_maps: dict[str, LabelMap] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    plan: object | None = None

    @property
    def grid(self) -> Grid:
        """The scan's own lattice, which all label maps share."""
        return self.volume.grid

    def segmentation(self, head: str) -> LabelMap:
        """The label map of one head, (X, Y, Z) uint8 on the scan's grid; value ``i + 1`` is ``classes[head][i]``.

        Raises:
            UnknownNameError: this prediction has no such label map.
        """
        if head not in self.label_maps:
            raise UnknownNameError("segmentation in this prediction", head, sorted(self.label_maps))
        return self.label_maps[head]

    def mask(self, structure: str) -> npt.NDArray[np.bool_]:
        """Where one structure is, (X, Y, Z) boolean on the scan's grid.

        Raises:
            UnknownNameError: no head of this prediction has such a class.
        """
        for head, names in self.classes.items():
            if structure in names and head in self.label_maps:
                found: npt.NDArray[np.bool_] = self.label_maps[head] == names.index(structure) + 1
                return found
        known = [name for head, names in self.classes.items() if head in self.label_maps for name in names]
        raise UnknownNameError("structure in this prediction", structure, known)

    def combined(self) -> tuple[LabelMap, dict[int, str]]:
        """One label map of all heads, as in ``segmentation.nii.gz``, and value → name.

        Values are those of :func:`label_values`; where heads overlap the later, finer one (calcium on a vessel) wins.
        """
        heads = anatomy.heads_in_order(self.label_maps)
        values = label_values({head: self.classes[head] for head in heads})
        labels = np.zeros(self.grid.shape, np.uint8, order="F")
        for head in heads:
            box = occupied_box(self.label_maps[head])
            if box is None:
                continue
            own, part = self.label_maps[head][box], labels[box]
            for number, name in enumerate(self.classes[head], start=1):
                np.copyto(part, np.uint8(values[head, name]), where=own == number)
        return labels, {value: name for (_, name), value in values.items()}

    def save(self, folder: str | Path) -> Path:
        """Write what ``cardiac-ct-fm predict`` writes: label map, points, measurements, picture and report.

        Measures where that is not done yet. :func:`cardiac_ct_fm.write_outputs` does the same with choices.

        Args:
            folder: made if it is not there; results in it are replaced, other files stay.

        Returns:
            The folder.

        Raises:
            OutputError: the file system refuses; nothing is written then.
        """
        from cardiac_ct_fm import write_outputs

        return write_outputs(self, folder)

    def write_files(self, folder: str | Path, extras: Iterable[Callable[[Prediction, Path], None]] = ()) -> Path:
        """Write what is known, undrawn, into ``folder``, all files or none; an older run's results are taken away.

        Args:
            folder: made if it is not there; files that are no results stay.
            extras: each is called with this prediction and the folder to write its own files into.

        Returns:
            The folder.

        Raises:
            OutputError: the file system refuses.
        """
        target = Path(folder)
        with atomic_folder(target, COMPLETE_MARKER, RESULT_FILES) as temporary:
            if self.label_maps:
                labels, names = self.combined()
                save_label_map(temporary / "segmentation.nii.gz", labels, self.grid, names)
                write_json(temporary / "segmentation.json", label_table(names))
                save_covered(temporary / "covered.npz", self.label_maps)
            points: Sequence[Landmark] = list(self.landmarks.values())
            write_landmarks(temporary / "landmarks.json", points, self.grid)
            write_slicer(temporary / "landmarks.mrk.json", points)
            write_mitk(temporary / "landmarks.mps", points)
            rows = [m.to_dict() for m in self.measurements.values()]
            write_json(temporary / "measurements.json", {"measurements": rows})
            for extra in extras:
                extra(self, temporary)
            classes = {head: self.classes[head] for head in anatomy.heads_in_order(self.label_maps)}
            facts = {"classes": classes, "input": self.input_facts(), "warnings": self.warnings}
            write_json(temporary / COMPLETE_MARKER, {**self.run, **facts})
        return target

    def input_facts(self) -> dict[str, Any]:
        """What was read: source, lattice and header facts, in plain JSON types."""
        return {
            "source": self.volume.source,
            "shape": list(self.grid.shape),
            "spacing_mm": [round(s, 4) for s in self.grid.spacing],
            "orientation": self.grid.orientation,
            "affine_ras": self.grid.affine.tolist(),
            **self.volume.facts,
        }
