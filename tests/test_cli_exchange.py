"""``convert`` and ``push``: other people's checkpoints in, models out to a Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from command_line import files_in, run
from conftest import ROOT
from hub_server import HubServer
from monai.networks.nets import SwinUNETR
from tiny_finder import save_finder

import cardiac_ct_fm as ccf


def test_a_monai_checkpoint_becomes_a_model_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SwinUNETR(in_channels=1, out_channels=2, feature_size=12, spatial_dims=3)
    torch.save(network.state_dict(), tmp_path / "swin.pt")
    command = ("convert", tmp_path / "swin.pt", "-o", tmp_path / "swin", "--head", "calc")
    unsure = run(*command)
    assert unsure.code == 2
    assert "monai<1.5" in unsure.line
    assert not (tmp_path / "swin").exists()
    done = run(*command, "--trained-with", "monai")
    assert done.code == 0, done.err
    assert "heads calc" in done.out
    x = torch.rand(1, 1, 64, 64, 64)
    with torch.no_grad():
        expected, got = network.eval()(x), ccf.from_pretrained(tmp_path / "swin")(x)["calc"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_that_holds_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hook": os.system}, tmp_path / "evil.pt")
    answer = run("convert", tmp_path / "evil.pt", "-o", tmp_path / "out")
    assert answer.code == 1
    assert "evil.pt" in answer.line
    assert files_in(tmp_path / "out") == []


def test_push_commits_the_model_and_prints_the_address(tmp_path: Path) -> None:
    folder = save_finder(tmp_path / "finder")
    server = HubServer()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cardiac_ct_fm", "push", str(folder), "org/finder"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
                "HF_ENDPOINT": server.url,
                "HF_HOME": str(tmp_path / "home"),
                "HF_TOKEN": "hf_secret_of_the_test",
            },
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{server.url}/org/finder/commit/")
        assert "hf_secret" not in done.stdout + done.stderr
        pushed = server.repositories["org/finder"]
        assert {"config.json", "model.safetensors"} <= set(pushed.commits[pushed.refs["main"]])
    finally:
        server.close()
