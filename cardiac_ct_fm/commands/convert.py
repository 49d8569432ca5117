"""``cardiac-ct-fm convert`` and ``push``: other people's checkpoints in, models out to a Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cardiac_ct_fm.commands import options


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", show_default=False)],
    out: options.Out,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model; by default the file's.")] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="What a MONAI SwinUNETR segments, for example heart.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAMES", help="Its classes without background, where the head is not in the vocabulary."),
    ] = None,
    trained_with: Annotated[
        Literal["monai", "monai<1.5"] | None,
        typer.Option(help="MONAI of the training; its patch merging changed in 1.5 and the file does not tell."),
    ] = None,
    intensity: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(
            metavar="LOW HIGH MEAN SD", help="Normalisation of the training, HU: clip, then (HU - mean) / SD."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="For a file with an encoder alone: decoder and heads at random, on purpose."),
    ] = None,
    precision: Annotated[Literal["float32", "float16"], typer.Option(help="Precision on disk.")] = "float32",
) -> int:
    """Turn a checkpoint into a model folder: the research code's, MONAI's SwinUNETR, self-supervised Swin encoders.

    Only tensors are read; a file that holds anything else, which could run code, is refused.

    [bold]Examples[/bold]

      cardiac-ct-fm convert best_model.pt -o fedkd

      cardiac-ct-fm convert swin.pt --head heart --trained-with "monai<1.5" -o swin
    """
    import torch

    from cardiac_ct_fm.commands.results import console
    from cardiac_ct_fm.config import IntensityConfig
    from cardiac_ct_fm.convert import convert as convert_checkpoint

    model = convert_checkpoint(
        checkpoint,
        out,
        name=name,
        head=head,
        classes=options.split_names(classes),
        trained_with=trained_with,
        intensity=None if intensity is None else IntensityConfig(*intensity),
        seed=seed,
        dtype=getattr(torch, precision),
    )
    heads = ", ".join(model.heads) or "none"
    console().print(
        f"{out}: {model.config.name}, {model.num_parameters / 1e6:.1f} M parameters, heads {heads}",
        markup=False,
        soft_wrap=True,
    )
    for limit in model.config.provenance.get("limitations", []):
        console().print(f"  ! {limit}", markup=False, soft_wrap=True)
    return 0


def push(
    model: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="The model to publish.", show_default=False)],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The Hub repository.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Commit message.")] = "Upload the model",
) -> int:
    """Publish a model on the Hugging Face Hub: configuration, safetensors, checksums and a model card.

    Weights and pictures are the model's files as they are, in the same precision; the card is generated from what
    registry.json and the configuration say, with the same figures. Nothing else is ever uploaded. Weights and pictures
    of a model that was in the repository before are deleted from it; its other files stay.

    Log in first (hf auth login) or set HF_TOKEN; HF_ENDPOINT names another Hub.
    """
    from cardiac_ct_fm import from_pretrained
    from cardiac_ct_fm.commands.results import console

    address = from_pretrained(model).push_to_hub(repository, commit_message=message, private=private or None)
    console().print(address, markup=False, soft_wrap=True)
    return 0
