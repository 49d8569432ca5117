"""All published weights give the logits that were written down when they were exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import cardiac_ct_fm as ccf
from cardiac_ct_fm.registry import ASSETS

PUBLISHED = [path.parent for root in (ASSETS, ROOT / "weights") for path in sorted(root.glob("*/registry.json"))]


def replay(file: Path) -> None:
    """Compute the logits of the golden input again, in float32, and compare them where they were kept."""
    tensors = load_file(file)
    x = tensors.pop("input").float()
    model = ccf.from_pretrained(file.parents[1])
    for head, refiner in model.refiners.items():
        patches, expected = tensors.pop(f"patches.{head}").float(), tensors.pop(f"refined.{head}")
        with torch.inference_mode():
            values = refiner(patches, torch.arange(len(patches)))[..., ::2, ::2, ::2]
        assert float((values - expected).abs().max()) <= 1e-4
        assert float(expected.std()) > 0.1
    with torch.inference_mode():
        logits = model(x)
    assert {f"logits.{head}" for head in logits} == set(tensors)
    for head, values in logits.items():
        expected = tensors[f"logits.{head}"]
        step = values.shape[-1] // expected.shape[-1]
        assert float((values[..., ::step, ::step, ::step] - expected).abs().max()) <= 1e-4
        assert float(expected.std()) > 0.1


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_logits_of_the_export_come_back(folder: Path) -> None:
    replay(folder / "test" / "golden.safetensors")


def test_the_bundled_weights_and_those_of_the_clone_are_among_them() -> None:
    assert {"cardiac_swin_tiny.synthetic", "cardiac_swin_small.synthetic"} <= {folder.name for folder in PUBLISHED}
