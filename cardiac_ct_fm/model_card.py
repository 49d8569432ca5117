"""The model card: a markdown page made from a model's configuration and its ``registry.json``, nothing else.

What was not recorded is said to be not recorded. Sections follow the conventions for model cards of Mitchell et al.
2019 and the metadata that the Hub reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.manifest import ModelInfo

NOT_RECORDED = "not recorded"

PROVENANCE_TITLES = {
    "data": "Training data",
    "synthetic_share": "Synthetic share of the training data",
    "recipe": "Recipe",
    "command": "Command that made the weights",
    "seed": "Seed",
    "commit": "Commit of the code",
    "steps": "Training steps",
    "grown": "Grown",
    "runs": "Trainings, each from the weights of the one before",
    "refiner_steps": "Training steps of the second look at points (recipes/refine.py), which needs no trunk",
    "refiner_runs": "Trainings of the second look, each going on with the one before",
    "second_look": "Second look at points",
    "teacher": "Teachers",
    "converted_from": "Converted from",
}
"""Keys of ``ModelConfig.provenance`` with their titles; other keys are printed as they are."""

ALWAYS_SHOWN = ("data", "synthetic_share", "command", "seed")
"""Provenance that a reader needs; printed as "not recorded" where it is missing."""

_USE = """## Intended use

Research on contrast-enhanced cardiac CT: segmentation, anatomical landmarks of the aortic root, features for further
training. Users are researchers who can check each result in the image.

**Research use only; this is not a medical device.** Out of scope: any clinical decision, including diagnosis, choice of
a valve and planning of a procedure; CT without contrast; other modalities.
"""


_USAGE = """```python
import cardiac_ct_fm as ccf

model = ccf.from_pretrained("{source}")
```"""


def model_card(config: ModelConfig, info: ModelInfo) -> str:
    """The card of a model as markdown with the Hub's metadata in front.

    Args:
        config: the model's configuration; ``provenance["limitations"]`` is a list of sentences.
        info: name, tag, licence, parameters, metrics and pictures.
    """
    provenance = dict(config.provenance)
    limitations = provenance.pop("limitations", [])
    title = info.full_name if info.tag else config.name
    parts = [
        _front_matter(info),
        f"# {title}",
        info.description or "A network for cardiac CT, made with cardiac-ct-fm.",
        _USE,
        "## Use",
        _USAGE.format(source=title if info.tag else f"./{title}"),
        "## Architecture",
        f"{_trunk_text(config)}; {info.parameters:,} weights.",
        _heads_table(config),
        _input_text(config),
        "## Provenance",
        _provenance_text(provenance),
        "## Metrics",
        _metrics_text(info.metrics),
        "## Limitations and failure modes",
        "\n".join(f"- {line}" for line in limitations) or f"- {NOT_RECORDED}",
        *_pictures(info.pictures),
        "## Licence",
        info.license or NOT_RECORDED,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _front_matter(info: ModelInfo) -> str:
    """YAML metadata of the Hub."""
    lines = ["library_name: cardiac-ct-fm", "tags: [cardiac-ct, image-segmentation, landmark-detection, medical, tavi]"]
    if info.license:
        lines.insert(0, f"license: {info.license}")
    return "\n".join(["---", *lines, "---"])


def _trunk_text(config: ModelConfig) -> str:
    """The trunk in one sentence."""
    b = config.backbone
    if b.architecture == "swin_unetr":
        return (
            f"SwinUNETR, feature size {b.feature_size}, {len(b.depths)} stages, attention windows of {b.window_size}³"
        )
    if b.architecture == "unetr":
        return f"UNETR, feature size {b.feature_size}, inputs of {b.image_size}³ voxels"
    blocks = "residual" if b.residual else "plain"
    return (
        f"U-Net (nnU-Net), {b.feature_size} features at full resolution, {len(b.depths) + 1} stages of {blocks} blocks"
    )


def _heads_table(config: ModelConfig) -> str:
    """Heads and classes."""
    rows = ["| head | kind | what | classes |", "|---|---|---|---|"]
    for head in config.heads:
        title = HEADS[head.name].title if head.name in HEADS else ""
        title += "; a second look at each point" if head.refine else ""
        rows.append(f"| {head.name} | {head.kind} | {title} | {', '.join(head.classes)} |")
    return "\n".join(rows)


def _input_text(config: ModelConfig) -> str:
    """Preprocessing and looks."""
    i = config.intensity
    looks = ", ".join(f"{k.name} {k.spacing_mm:g} mm × {k.window}³" for k in config.looks) or "none"
    seg = " The one-hot heart segmentation is a second input." if config.condition_on_seg else ""
    return (
        f"Input: Hounsfield units clipped to {i.low_hu:g}…{i.high_hu:g}, minus {i.mean_hu:g}, divided by {i.std_hu:g}; "
        f"looks: {looks}.{seg}"
    )


def _provenance_text(provenance: Mapping[str, Any]) -> str:
    """Known keys first, in the order of their titles."""
    if not provenance:
        return f"{NOT_RECORDED}; weights without provenance are random or of unknown origin."
    keys = [k for k in PROVENANCE_TITLES if k in provenance or k in ALWAYS_SHOWN]
    keys += [k for k in provenance if k not in PROVENANCE_TITLES]
    # a list of trainings is the command
    keys = [k for k in keys if not (k == "command" and k not in provenance and "runs" in provenance)]
    return "\n".join(f"- {PROVENANCE_TITLES.get(k, k)}: {_told(provenance.get(k, NOT_RECORDED))}" for k in keys)


def _told(value: Any) -> str:
    """A list of trainings as commands below each other, anything else in one line."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) and "command" in item for item in value):
        return _inline(value)
    lines = []
    for run in value:
        rest = _inline({k: v for k, v in run.items() if k != "command"})
        lines.append(f"  - `{' '.join(map(str, run['command']))}` ({rest})")
    return "\n".join(["", *lines])


def _metrics_text(metrics: Mapping[str, Any]) -> str:
    """A table per group of figures; a plain figure stands alone."""
    if not metrics:
        return NOT_RECORDED
    lines: list[str] = []
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            lines += [f"**{name}**", "", "| measure | value |", "|---|---|"]
            lines += [*(f"| {key} | {_inline(figure)} |" for key, figure in value.items()), ""]
        else:
            lines += [f"- {name}: {_inline(value)}"]
    return "\n".join(lines).strip()


def _pictures(pictures: Mapping[str, str]) -> list[str]:
    """A section with every picture above its caption; none without pictures."""
    return ["## Pictures", *(f"![{text}]({file})\n\n*{text}*" for file, text in pictures.items())] if pictures else []


def _inline(value: Any) -> str:
    """One line for a value of JSON."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_inline(item) for item in value)
    return str(value)
