"""Which trunk serves a new label best? The same head, learned on the same scans, on several trunks left as they are.

Needs a data list, the name of the head that its labels are for, and one or more models.

cardiac-ct-fm cohort --n 8 --spacing 1.0 -o cohort
python examples/compare_trunks.py cohort/datalist.json coronaries cardiac_swin_tiny random:cardiac_swin_tiny
"""

import sys

import cardiac_ct_fm as ccf
from cardiac_ct_fm.training.settings import FinetuneSettings


def trunk(source: str) -> ccf.CardiacCTModel:
    """A trained model, or an untrained one as a yardstick: ``random:ARCHITECTURE``."""
    kind, _, architecture = source.partition(":")
    return ccf.create_model(architecture, seed=0) if kind == "random" else ccf.from_pretrained(source)


def main(data: str, head: str, *sources: str, epochs: int = 20) -> None:
    """Print the best validation Dice per trunk; validation patients are the same for all."""
    settings = FinetuneSettings(train="head", epochs=epochs, validation=0.25)
    for source in sources:
        result = ccf.finetune(trunk(source), data, head, settings=settings)  # nothing is kept on disk
        rows = result.standing.history
        print(
            f"{source:32} {result.model.backbone.out_channels:3} features  best validation Dice {result.best_dice:.3f}"
            f"  loss {rows[0]['train_loss']:.2f} → {rows[-1]['train_loss']:.2f}  {result.standing.seconds:.0f} s"
        )


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except ccf.CardiacCTError as error:  # says what is wrong, why, and the way out
        sys.exit(str(error))
