"""Ten digital patients beside the real demonstration scan, in one window, as a picture for eyes.

python -m recipes.cohort_montage --out docs/cohort/montage.png

Some digital scans end in the root, as some real ones do. What a scan does not show stays black, but axial slices are
laid where it shows something, and the title says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.cohort.case import draw_case
from cardiac_ct_fm.geometry import to_canonical

SCAN = Path(__file__).parents[1] / "examples" / "data" / "ts-aorta-cta"
WINDOW_HU = (-200.0, 600.0)
ROWS = ("axial, 1.5 mm", "coronal, 1.5 mm", "root axial, 0.75 mm", "root coronal, 0.75 mm")


def views(image: NDArray[np.float32], middle: tuple[int, int, int]) -> list[NDArray[np.float32]]:
    """Axial and coronal slice through a voxel, as a radiologist hangs them (patient's right on the left)."""
    return [image[::-1, :, middle[2]].T, image[::-1, middle[1], :].T]


def shown_slice(seen: NDArray[np.bool_], wanted: int) -> int:
    """The axial slice nearest to a wanted one of which at least half lies in the scan's field of view, (X, Y, Z).

    Half of the largest share that any slice has: a field of view may be a small circle. A scan that shows nothing
    keeps the wanted slice.
    """
    share = seen.mean(axis=(0, 1))
    return min(range(len(share)), key=lambda k: (share[k] < 0.5 * share.max(), abs(k - wanted)))


def digital(seed: int) -> tuple[str, list[NDArray[np.float32]]]:
    """Title and four pictures of a digital patient around the root."""
    case = draw_case(seed, strength=0.7)
    root = torch.stack([case.heart.landmarks[k] for k in HINGE_POINTS]).mean(0) + torch.tensor([0.0, 0.0, 6.0])
    pictures: list[NDArray[np.float32]] = []
    cut_off = False
    for spacing, side in ((1.5, 112), (0.75, 72)):
        image, look = case.look(root, spacing, (side, side, side), seed)
        level = shown_slice(look.seen.numpy(), side // 2)
        cut_off |= level != side // 2
        pictures += views(image.numpy(), (side // 2, side // 2, level))
    return f"digital {seed}" + (", scan ends in root" if cut_off else ""), pictures


def main() -> None:
    """Draw the montage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=500)
    args = parser.parse_args()
    columns = [digital(seed) for seed in range(args.first, args.first + 10)]
    real = nib.load(SCAN / "ct_cropped.nii.gz")
    data, affine = to_canonical(np.asarray(real.dataobj).astype(np.float32), real.affine)
    disc = nib.load(SCAN / "annulus_proper.nii.gz")
    world = nib.affines.apply_affine(disc.affine, np.argwhere(np.asarray(disc.dataobj) > 0)).mean(0)
    world = world + np.array([0.0, 0.0, 6.0])
    x, y, z = (round(float(v)) for v in nib.affines.apply_affine(np.linalg.inv(affine), world))
    close = data[x - 18 : x + 18, y - 18 : y + 18, z - 18 : z + 18]
    columns.insert(5, ("real", views(data, (x, y, z)) + views(close, (18, 18, 18))))
    figure = Figure(figsize=(2.0 * len(columns), 8.4), facecolor="#101114", layout="constrained")
    for column, (title, pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            axes = figure.add_subplot(4, len(columns), row * len(columns) + column + 1)
            axes.imshow(picture, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], origin="lower")
            axes.set_xticks([])
            axes.set_yticks([])
            colour = "#ffcc33" if title == "real" else "#30343b"
            for spine in axes.spines.values():
                spine.set_color(colour)
            if row == 0:
                axes.set_title(title, color="#ffcc33" if title == "real" else "#c9ced6", fontsize=9)
            if column == 0:
                axes.set_ylabel(ROWS[row], color="#c9ced6", fontsize=8)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=100)


if __name__ == "__main__":
    main()
