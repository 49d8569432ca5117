"""The benchmark of the look at 1 mm alone: windows around held-out roots, scored like whole scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.model import create_model
from cardiac_ct_fm.training.digital import held_out_patients
from recipes.benchmarks import root_look


def test_a_window_shows_the_whole_root_off_its_middle_and_is_the_same_each_time() -> None:
    source = root_look.windows(create_model("cardiac_swin_tiny"), held_out_patients("2/0,5/3"))
    assert source.keys == ("site2-250000", "site5-550003")
    first, again, other = (source.load(key) for key in (*source.keys[:1] * 2, source.keys[1]))
    assert first.volume.data.shape == (64, 64, 64) and first.volume.grid.spacing == pytest.approx((1, 1, 1))
    np.testing.assert_array_equal(first.volume.data, again.volume.data)
    assert first.site == "site2" and other.site == "site5"
    for scan in (first, other):
        assert all(point.found for head in scan.landmarks.values() for point in head.values())
        root = np.mean([scan.landmarks["hps"][name].ras_mm for name in HINGE_POINTS], axis=0)
        away = np.linalg.norm(scan.volume.grid.centre_ras - root)
        assert 0.1 < away < 20


def test_the_published_weights_are_scored_in_it_and_an_interrupted_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "cardiac_swin_tiny", "--out", str(tmp_path), "--json"]
    root_look.main([*options, "--cohort", "1/0"])
    one = json.loads(capsys.readouterr().out)
    assert one["scans"] == 1 and one["data"]["shape"] == [64, 64, 64]
    assert one["landmarks"]["hinge points"]["asked"] == 3 and one["landmarks"]["ostia"]["asked"] == 2
    assert one["landmarks"]["hinge points"]["median"] < 4
    assert one["segmentation"]["Aorta"]["dice"]["median"] > 0.9
    kept = (tmp_path / "cases" / "site1-150000.csv").stat().st_mtime_ns
    root_look.main([*options, "--cohort", "1-2/0"])
    two = json.loads(capsys.readouterr().out)
    assert two["scans"] == 2 and two["by_site"].keys() == {"site1", "site2"}
    assert (tmp_path / "cases" / "site1-150000.csv").stat().st_mtime_ns == kept
    root_look.main([*options[:4], "--cohort", "1-2/0", "--against", "cardiac_swin_tiny"])
    told = [line for line in capsys.readouterr().out.splitlines() if ", difference " in line]
    assert len(told) > 20 and all("difference +0.0000, p 1: no difference shown" in line for line in told)
    assert (tmp_path / "against" / "cases" / "site2-250000.csv").is_file()
    with pytest.raises(ConfigError, match="no site 9"):
        root_look.main([*options, "--cohort", "9/0"])
