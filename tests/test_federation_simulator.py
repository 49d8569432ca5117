"""The federation on one machine: NVFlare's simulator, digital sites, from the command line to published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cardiac_ct_fm as ccf
from recipes.federated_distillation.__main__ import main
from recipes.federated_distillation.in_process import run_in_process
from recipes.federated_distillation.presets import PRESETS
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.state import State

pytest.importorskip("nvflare")

SMALL = {"task": "ms", "method": "fedavg", "output_seg": False, "locations": ("site-1", "site-3"), "scans": 3,
         "labelled": 3, "rounds": 1, "looks_per_scan": 1, "exp_name": "small"}  # fmt: skip


def test_the_simulator_gives_the_engine_free_weights_and_publishes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "run --local --preset smoke --task ms --method fedavg --no-output-seg --locations site-1 site-3 --scans 3"
    command += f" --labelled 3 --rounds 1 --looks-per-scan 1 --exp-name small --out {tmp_path / 'nvflare'}"
    assert main(command.split()) == 0
    shown = capsys.readouterr()
    assert "fedavg  round 1  site-1  ms loss" in shown.err and "finished with 2 sites" in shown.err
    assert "ms, mm, training sites" in shown.out

    settings = Settings(**(PRESETS["smoke"] | SMALL))
    weights = State(tmp_path / "nvflare" / "server" / "small", settings).load("fedavg")
    expected = run_in_process(settings, tmp_path / "plain").load("fedavg")
    assert max(float(np.abs(weights[k] - expected[k]).max()) for k in expected) <= 1e-5

    model = ccf.from_pretrained(tmp_path / "nvflare" / "models" / "cardiac_swin_smoke.small")
    assert np.array_equal(model.heads["ms"].weight.detach().numpy(), weights["heads.ms.weight"])
    assert model.config.provenance["synthetic_share"] == 1.0
    assert (tmp_path / "nvflare" / "server" / "small" / "history.png").stat().st_size > 1000
