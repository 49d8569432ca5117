"""Pictures of a training and of an evaluation: history, montage of validation windows, box plots."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cardiac_ct_fm.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cardiac_ct_fm.training.case_scores import Row
    from cardiac_ct_fm.training.loop import Windows
    from cardiac_ct_fm.training.trainee import Trainee

DPI = 110

INK, FIRST, SECOND = "#333333", "#1f77b4", "#d95f02"
"""Blue and orange, told apart by all common kinds of colour vision."""


def draw_history(path: Path, history: Sequence[Mapping[str, Any]], head: str) -> None:
    """Loss and validation Dice by epoch.

    Raises:
        OutputError: the file system refuses.
    """
    figure = _figure(7.0, 3.2)
    axes = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    axes[0].plot(epochs, [row["train_loss"] for row in history], color=FIRST, label="training")
    if any(row["val_loss"] is not None for row in history):
        axes[0].plot(epochs, [row["val_loss"] for row in history], color=SECOND, label="validation")
        axes[1].plot(epochs, [row["val_dice"] for row in history], color=SECOND)
        best = max(history, key=lambda row: row["val_dice"])
        axes[1].plot([best["epoch"]], [best["val_dice"]], "o", color=SECOND)
        axes[1].set_title(f"validation Dice, best {best['val_dice']:.3f}", fontsize=9)
    else:
        axes[1].set_title("no validation scans", fontsize=9)
    axes[0].set_title(f"{head}: loss", fontsize=9)
    axes[0].legend(fontsize=8)
    for ax in axes:
        ax.set_xlabel("epoch")
    _save(figure, path)


@torch.no_grad()
def draw_montage(path: Path, learner: Trainee, windows: Windows, count: int) -> None:
    """Validation windows (training ones where there are none) with reference and answer as outlines.

    Raises:
        OutputError: the file system refuses.
    """
    part = "validation" if "validation" in windows.sources else "training"
    keys = windows.keys(part, 1)
    keys = [keys[int(i)] for i in np.unique(np.linspace(0, len(keys) - 1, min(count, len(keys))).astype(int))]
    figure = _figure(2.1 * len(keys), 2.6)
    axes = np.atleast_1d(figure.subplots(1, len(keys)))
    device = next(learner.model.parameters()).device
    for ax, key in zip(axes, keys, strict=True):
        window = windows.image(key)
        logits = learner.model(window.image[None].to(device), heads=[learner.head])[learner.head]
        answer = logits[0].argmax(0).cpu().numpy() > 0
        truth = window.target.numpy() > 0
        per_slice = truth.sum((0, 1)) if truth.any() else answer.sum((0, 1))
        level = int(per_slice.argmax()) if per_slice.any() else truth.shape[2] // 2
        ax.imshow(window.image[0, :, :, level].T, cmap="gray", origin="lower", vmin=0.2, vmax=2.2)
        for mask, colour in ((truth, "#37c871"), (answer, "#ff5555")):
            if mask[:, :, level].any():
                ax.contour(mask[:, :, level].T, levels=[0.5], colors=colour, linewidths=0.9)
        ax.set_title(f"{key.scan}\nslice {level}", fontsize=7)
        ax.axis("off")
    figure.suptitle(f"{learner.head}: reference green, answer red", fontsize=8)
    _save(figure, path)


def draw_boxes(path: Path, runs: Mapping[str, Iterable[Row]], limit_mm: float = 10.0) -> None:
    """Box plots of landmark errors and Dice per structure, one box per model; missed points are counted below.

    Args:
        path: a ``.png``.
        runs: model → its rows.
        limit_mm: upper end of the axis; what lies beyond is counted with the missed ones.

    Raises:
        OutputError: the file system refuses.
    """
    from cardiac_ct_fm.training.summary import table

    rows = {name: list(own) for name, own in runs.items()}
    everything = [row.score for own in rows.values() for row in own]
    points = list(dict.fromkeys(s.structure for s in everything if s.measure == "error_mm"))
    masks = list(dict.fromkeys(s.structure for s in everything if s.measure == "dice"))
    panels = [(p, names) for p, names in (("error_mm", points), ("dice", masks)) if names]
    figure = _figure(2.0 + 0.55 * max((len(n) for _, n in panels), default=1) * len(rows), 3.0 * max(1, len(panels)))
    axes = np.atleast_1d(figure.subplots(max(1, len(panels)), 1))
    for ax, (measure, names) in zip(axes, panels, strict=False):
        for number, (model, own) in enumerate(rows.items()):
            colour = (FIRST, SECOND)[number % 2]
            width = 0.7 / len(rows)
            for i, name in enumerate(names):
                values = table(own, (name,), measure)[1].reshape(-1)
                values = values[~np.isnan(values)]
                shown = values[values <= limit_mm] if measure == "error_mm" else values
                place = i + (number - (len(rows) - 1) / 2) * width
                style = {"boxprops": {"facecolor": colour, "alpha": 0.45}, "medianprops": {"color": INK}}
                shape = {"patch_artist": True, "manage_ticks": False, "flierprops": {"markersize": 2}}
                ax.boxplot(shown, positions=[place], widths=width * 0.85, **style, **shape)
                if measure == "error_mm" and len(shown) < len(values):
                    ax.text(
                        place, limit_mm, str(len(values) - len(shown)), ha="center", va="top", fontsize=7, color=colour
                    )
            ax.plot([], [], "s", color=colour, alpha=0.6, label=model)
        ax.set_xticks(range(len(names)), names, fontsize=8)
        ax.set_ylim((0, limit_mm) if measure == "error_mm" else (0, 1))
        ax.set_ylabel("error in mm; numbers: missed or beyond" if measure == "error_mm" else "Dice", fontsize=8)
        ax.legend(fontsize=7)
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    """A figure that no window system knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    with atomic_write(path) as temporary:
        temporary.write_bytes(picture.getvalue())
