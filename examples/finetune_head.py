"""Put a label of your own on the trained trunk, keep it as a small file, and predict with it.

Needs a data list, the name of the head, a folder for it and a scan to try it on; a model and the epochs may follow.

cardiac-ct-fm cohort --n 4 --spacing 1.0 -o cohort
python examples/finetune_head.py cohort/datalist.json coronaries out examples/data/ts-aorta-cta/ct_cropped.nii.gz
"""

import sys

import cardiac_ct_fm as ccf
from cardiac_ct_fm.training.settings import FinetuneSettings


def main(data: str, head: str, out: str, scan: str, model: str = "cardiac_swin_tiny", epochs: str = "20") -> None:
    """Fine-tune a head on a data list (MONAI's Decathlon JSON) and use it on a scan."""
    settings = FinetuneSettings(train="head", epochs=int(epochs))  # "decoder" and "all" learn more and take longer

    def tell(what: str, done: int, steps: int, seconds_left: float | None) -> None:
        if done == steps:
            print(f"{what} done" if seconds_left is None else f"{what} done, at most {seconds_left:.0f} s left")

    result = ccf.finetune(model, data, head, out=out, settings=settings, progress=tell)
    dice = "none, no validation scans" if result.best_dice is None else f"{result.best_dice:.2f}"
    print(f"{result.path}: {result.path.stat().st_size / 1000:.1f} kB, best validation Dice {dice}")

    # The file goes onto the trunk that it was made on, beside the heads that are there, here or anywhere else.
    network = ccf.from_pretrained(model, heads=["heart", result.path])
    prediction = ccf.Predictor(network)(scan, heads=["heart", head], measure=False)
    for name in prediction.classes[head]:
        volume = prediction.mask(name).sum() * prediction.grid.voxel_mm3 / 1000
        print(f"{name}: {volume:.1f} mL in {prediction.volume.name}")


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6, 7):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except ccf.CardiacCTError as error:  # says what is wrong, why, and the way out
        sys.exit(str(error))
