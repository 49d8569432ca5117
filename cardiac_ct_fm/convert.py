"""Convert other people's checkpoints into model folders of this package; the layouts are in ``checkpoints``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.checkpoints import Layout, Merging, head_config, read_checkpoint, recognise
from cardiac_ct_fm.config import HeadConfig, IntensityConfig, LookConfig, ModelConfig
from cardiac_ct_fm.errors import UsageError
from cardiac_ct_fm.model import CardiacCTModel, create_model
from cardiac_ct_fm.tensor_files import check_match, floats, head_of
from cardiac_ct_fm.weights import sha256_of

ORIGINAL_INTENSITY = IntensityConfig(-1024.0, 696.0, -439.6132772, 520.9826361876911)
"""Normalisation with which the research code trains all its networks (its intensityproperties)."""

ORIGINAL_SPACING_MM = 1.0
"""Voxel size at which the research code trains and predicts."""

ORIGINAL_WINDOW = 192
"""Window of the research code's U-Net in voxels; its SwinUNETR trains on 96³ patches."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    name: str | None = None,
    head: str | None = None,
    classes: Sequence[str] | None = None,
    trained_with: Merging | None = None,
    intensity: IntensityConfig | None = None,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> CardiacCTModel:
    """Read a checkpoint of a known layout and write it as a model folder.

    Args:
        source: a checkpoint: of the research code (all of its trunks), a MONAI SwinUNETR state dict, or a
            self-supervised Swin encoder. Only tensors are read; a file that holds more is refused.
        target: folder to write.
        name: name of the model; the file's name when None.
        head: name of the head of a MONAI SwinUNETR, for example ``heart``.
        classes: its class names without the background, where ``head`` is not in the vocabulary.
        trained_with: ``monai<1.5`` or ``monai``: the version that a SwinUNETR was trained with, which its file does
            not tell and its logits depend on. Needed for MONAI state dicts; the research code and the published
            self-supervised encoders are older than 1.5.
        intensity: normalisation that the network was trained with, where the layout does not fix it.
        seed: makes the decoder and the core heads random, on purpose, where the file holds an encoder alone.
        dtype: precision on disk.

    Returns:
        The converted model, in evaluation mode.

    Raises:
        UsageError: the file leaves something open that an argument has to say.
        WeightsError: the file is missing, unsafe, or of no known layout.
        OutputError: the folder cannot be written.
    """
    path = Path(source)
    layout = recognise(read_checkpoint(path), trained_with)
    original = layout.kind.endswith("research code")
    if layout.kind == "MONAI SwinUNETR" and trained_with is None:
        raise UsageError(
            f"{path} is a MONAI SwinUNETR, whose patch merging changed in MONAI 1.5: say trained_with='monai<1.5' or "
            "trained_with='monai'."
        )
    if layout.kind == "MONAI SwinUNETR" and head is None:
        raise UsageError(f"{path} has an output without a name; say what it segments with head=… and classes=….")
    if not layout.heads and seed is None:
        raise UsageError(
            f"{path} holds an encoder alone; with seed=… the decoder and the heads are made random, to be trained."
        )
    if intensity is not None and original:
        raise UsageError("The research code's normalisation is known; leave intensity out.")
    if head is not None and layout.kind == "MONAI SwinUNETR":
        layout.heads = {head: layout.heads["out"]}
    heads = tuple(head_config(n, len(w), classes if n == head else None) for n, (w, _) in layout.heads.items())
    config = ModelConfig(
        name=name or path.stem,
        backbone=layout.backbone,
        heads=heads or ModelConfig().heads,
        intensity=ORIGINAL_INTENSITY if original else intensity or IntensityConfig(),
        looks=_looks(layout, heads) if original else (),
        condition_on_seg=layout.backbone.in_channels == 1 + len(HEADS["heart"].classes),
        provenance=_provenance(path, layout, seed, intensity is not None or original),
    )
    model = create_model(config, seed=seed if seed is not None else 0).eval()
    _load(model, layout, str(path))
    model.save_pretrained(target, dtype=dtype)
    return model


def _load(model: CardiacCTModel, layout: Layout, source: str) -> None:
    """Put the tensors into the model; all must fit, and all of the model must be given unless it is to be random."""
    given = {f"backbone.{name}": tensor for name, tensor in floats(layout.trunk).items()}
    for name, (weight, bias) in layout.heads.items():
        given |= {f"heads.{name}.weight": weight, f"heads.{name}.bias": bias}
    expected = floats(model.state_dict())
    if not layout.heads:
        expected = {k: v for k, v in expected.items() if k.startswith("backbone.swinViT.") and head_of(k) is None}
    # MONAI's ViT blocks have held a norm for a cross attention since 1.5, which UNETR does not use
    unused = {k: v for k, v in expected.items() if ".norm_cross_attn." in k and k not in given}
    check_match(source, expected, given | unused)
    model.load_state_dict(given, strict=False)  # strict: check_match compared the names


def _looks(layout: Layout, heads: tuple[HeadConfig, ...]) -> tuple[LookConfig, ...]:
    """The one look that the research code trains: 1 mm, and the window of its architecture."""
    config = layout.backbone
    window = {"swin_unetr": 96, "unetr": config.image_size, "dynunet": ORIGINAL_WINDOW}[config.architecture]
    return (LookConfig("root", ORIGINAL_SPACING_MM, window, tuple(h.name for h in heads)),)


def _provenance(path: Path, layout: Layout, seed: int | None, intensity_known: bool) -> dict[str, object]:
    """What is known of the weights, and what a user must know."""
    limits: list[str] = []
    if layout.kind.endswith("research code"):
        limits.append("Trained at 1 mm only: there is no look that finds the heart in a whole scan.")
        limits.append("The training ignored image directions; axes are taken as those of an axial LPS image.")
    if layout.left_out:
        limits.append(f"Heads left out because the checkpoint's task did not train them: {', '.join(layout.left_out)}.")
    if not layout.heads:
        limits.append(f"Decoder and heads are random (seed {seed}), to be trained; only the encoder is pretrained.")
    if not intensity_known:
        limits.append("The normalisation was not recorded; this package's own is assumed.")
    return {
        "converted_from": f"{path.name} ({layout.kind}), sha256 {sha256_of(path)}",
        "settings": layout.settings,
        "limitations": limits,
    }
