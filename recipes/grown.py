"""A four-stage Swin trunk that starts from a trained three-stage one, instead of from random weights.

The three-stage trunk ends in a residual block at stride 16 (``encoder10``). In the four-stage one ``decoder5`` stands
there: the same block, which also reads what comes up from the new, deeper stage. It gets the old block's weights, and
its inputs from below begin near zero, so the grown network starts from nearly the old one's answers and learns to use
its wider view. Only nearly: MONAI normalises the residual path of ``decoder5``, where the old block adds it as it is.
Grown from the bundled network, 99.3 % of the voxels of a digital patient's looks at 1 and 2 mm keep their class, and
every class' logits correlate with the old ones by at least 0.99 (``tests/test_grown.py`` measures it again). After Chen
et al. 2016 (Net2Net), whose deeper networks keep the answers exactly.
"""

from __future__ import annotations

import torch

from cardiac_ct_fm.errors import WeightsError

QUIET = 0.1
"""Factor on the random weights that read the new stage; 0 would keep it from learning (a choice of this project)."""

OLD, NEW = "backbone.encoder10.layer.", "backbone.decoder5.conv_block."

Weights = dict[str, torch.Tensor]


def grown(small: Weights, large: Weights) -> Weights:
    """The state dict of a four-stage model, filled from a three-stage one of the same feature size.

    Args:
        small: trained, three stages.
        large: freshly drawn, four stages, the same heads.

    Raises:
        WeightsError: the two do not fit so.
    """
    ours = {name: tensor.clone() for name, tensor in large.items()}
    taken = {name: tensor for name, tensor in small.items() if not name.startswith(OLD)}
    wrong = [name for name, tensor in taken.items() if name not in ours or ours[name].shape != tensor.shape]
    stem, joined = f"{OLD}conv1.conv.weight", f"{NEW}conv1.conv.weight"
    if wrong or stem not in small or joined in small or joined not in ours:
        raise WeightsError(
            "Only a four-stage Swin model grows, and from three stages of the same feature size and heads; "
            f"{', '.join(wrong[:3]) or 'a stage'} does not fit."
        )
    ours |= {name: tensor.clone() for name, tensor in taken.items()}
    width = small[stem].shape[0]
    first, skip = ours[joined], ours[f"{NEW}conv3.conv.weight"]
    first[:, :width] *= QUIET
    first[:, width:] = small[stem]
    ours[f"{NEW}conv2.conv.weight"].copy_(small[f"{OLD}conv2.conv.weight"])
    skip[:, :width] *= QUIET
    skip[:, width:] = torch.eye(width)[:, :, None, None, None]
    return ours
