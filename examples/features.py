"""The network as a feature extractor: one vector per scan, and a feature pyramid for models of your own.

Needs a scan; a model may follow.

python examples/features.py examples/data/ts-aorta-cta/ct_cropped.nii.gz
"""

import sys

import torch

import cardiac_ct_fm as ccf
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.preprocess import look_tensor
from cardiac_ct_fm.volume_io import load_volume


def main(scan: str, model: str = "cardiac_swin_tiny") -> None:
    """Print the shapes of what the trunk has to offer."""
    predictor = ccf.Predictor(model)
    vector = predictor.embed(scan)  # the trunk's deepest map around the heart, averaged
    print(f"one vector per scan: {tuple(vector.shape)}, norm {vector.norm():.2f}")

    trunk = ccf.from_pretrained(model, heads=[])  # no head is read
    volume = load_volume(scan)
    window = Grid.centred(volume.grid.centre_ras, 2.0, (64, 64, 64))
    x = look_tensor(volume, window, trunk.config.intensity, "cpu")  # the very preprocessing of training
    with torch.inference_mode():
        for level, (facts, features) in enumerate(zip(trunk.feature_info, trunk.forward_intermediates(x), strict=True)):
            print(f"level {level}: stride {facts.stride}, {tuple(features.shape)}")
        print(f"decoder's last map, which the heads read: {tuple(trunk.forward_features(x).shape)}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except ccf.CardiacCTError as error:  # says what is wrong, why, and the way out
        sys.exit(str(error))
