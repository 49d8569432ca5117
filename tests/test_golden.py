"""The bundled weights give the logits that were written down when they were exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cardiac_ct_fm as ccf

GOLDEN = sorted((Path(ccf.__file__).parent / "assets").glob("*/test/golden.safetensors"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.parts[-3])
def test_the_logits_of_the_export_come_back(file: Path) -> None:
    tensors = load_file(file)
    with torch.inference_mode():
        logits = ccf.from_pretrained(file.parents[1]).eval()(tensors.pop("input"))
    assert {f"logits.{head}" for head in logits} == set(tensors)
    for head, values in logits.items():
        expected = tensors[f"logits.{head}"]
        assert float((values[..., ::2, ::2, ::2] - expected).abs().max()) <= 1e-4
        assert float(expected.std()) > 0.1


def test_there_is_such_a_file_for_the_bundled_weights() -> None:
    assert [file.parts[-3] for file in GOLDEN] == ["cardiac_swin_tiny.synthetic"]
