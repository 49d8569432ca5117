"""From a scan to named landmarks, volumes and measurements in ten lines.

Needs a scan and a folder for the results; a model may follow.

python examples/predict.py examples/data/ts-aorta-cta/ct_cropped.nii.gz out
"""

import sys
from pathlib import Path

import cardiac_ct_fm as ccf


def main(scan: str, out: str, model: str = "cardiac_swin_tiny") -> None:
    """Predict one scan, print what was found, and write everything into a folder."""
    predictor = ccf.Predictor(model)  # loaded once, for any number of scans
    prediction = predictor(scan, quality="standard")

    for point in prediction.landmarks.values():
        where = "not found" if point.ras_mm is None else "R {:.1f}, A {:.1f}, S {:.1f} mm".format(*point.ras_mm)
        print(f"{point.name:4} {where}  (confidence {point.confidence:.2f})")

    ventricle = prediction.mask("LV")  # (X, Y, Z) boolean on the scan's own grid
    print(f"left ventricle: {ventricle.sum() * prediction.grid.voxel_mm3 / 1000:.0f} mL")

    area = prediction.measurements["annulus_area_mm2"]
    print(f"annulus area: {'none' if area.value is None else f'{area.value:.0f} mm²'} ({area.status})")

    folder = prediction.save(Path(out) / prediction.volume.name)
    print(f"everything, with picture and report: {folder}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except ccf.CardiacCTError as error:  # says what is wrong, why, and the way out
        sys.exit(str(error))
