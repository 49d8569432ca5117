"""The benchmarks count what they say: scans of any size, stages, arithmetic, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.volume_io import load_volume
from recipes.benchmarks import original
from recipes.benchmarks.meter import StageClock, gflops, measured
from recipes.benchmarks.scans import make_scan, write_scan
from recipes.benchmarks.standins import Known
from recipes.benchmarks.tables import predict_table, scale_picture
from tests.small_models import small_model


def test_a_benchmark_scan_shows_the_demonstration_scan_where_it_is(demo_volume, tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", (60, 62, 100), (3.0, 3.0, 3.0))
    made = load_volume(path)
    assert made.data.shape == (60, 62, 100) and made.data.dtype == np.int16
    np.testing.assert_allclose(made.grid.centre_ras, demo_volume.grid.centre_ras, atol=1e-3)
    again = make_scan((60, 62, 100), (3.0, 3.0, 3.0))
    np.testing.assert_array_equal(again.data, made.data)
    inside = demo_volume.grid.contains(made.grid.points())
    assert 0.6 < inside.mean() < 0.9
    assert abs(float(made.data[inside].mean()) - float(demo_volume.data.mean())) < 15


def test_a_stage_costs_what_was_spent_in_it_and_a_pause_costs_nothing() -> None:
    wall, cpu = 100.0, 7.0

    def work(seconds: float, threads: int) -> None:
        nonlocal wall, cpu
        wall, cpu = wall + seconds, cpu + seconds * threads

    clock = StageClock(lambda: wall, lambda: cpu)
    work(0.5, threads=2)
    clock.lap("first")
    work(1.0, threads=1)
    with clock.paused():
        work(8.0, threads=4)
    work(2.0, threads=2)
    clock.lap("second")
    work(0.25, threads=4)
    clock.lap("first")
    costs = {name: (cost.wall_s, cost.cpu_s) for name, cost in clock.costs.items()}
    assert costs == {"first": (0.75, 2.0), "second": (3.0, 5.0)}
    assert clock.laps == {"first": 0.75, "second": 3.0}


def test_memory_is_that_of_the_work_and_more_work_takes_longer_not_more() -> None:
    held, cost = measured(lambda: np.ones(100_000_000, np.uint8))
    assert cost.peak_mb > held.nbytes / 2**20
    assert cost.scaled(3).cpu_s == 3 * cost.cpu_s
    assert cost.scaled(3).peak_mb == cost.peak_mb


def test_arithmetic_is_counted_without_computing() -> None:
    model = small_model("swin of three stages")
    whole, half = gflops(model, 64), gflops(model, 32)
    assert 7 < whole / half < 9
    first = 2 * 27 * 12 * 64**3 / 1e9
    assert whole > 3 * first


def test_stand_ins_say_what_is_known_on_any_lattice() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:15, 5:15, 5:15] = 2
    known = Known(Grid((20, 20, 20), np.eye(4)), {"heart": labels}, {"ms": [[10.0, 10.0, 10.0], None]})
    grid = Grid.centred((9.3, 9.3, 9.3), 2.0, (16, 16, 16))
    heart = known.logits("heart", grid, torch.zeros(8, 16, 16, 16)).argmax(0).numpy()
    where = grid.points()
    np.testing.assert_array_equal(heart == 2, ((where > 4.5) & (where < 14.5)).all(-1))
    points = known.logits("ms", grid, torch.zeros(3, 16, 16, 16)).argmax(0).numpy()
    assert (points == 1).sum() == pytest.approx(4 / 3 * np.pi * 4**3 / 8, rel=0.25)
    assert not (points == 2).any()


def test_the_originals_points_are_those_of_the_largest_spheres() -> None:
    labels = original._stand_in(3)
    labels[70, 40, 150] = 0  # a hole makes the stray sphere of class 1 the smaller one
    points = original._points(labels, 3)
    np.testing.assert_allclose(points[0], (70, 96, 96))


def test_the_table_compares_ours_with_the_originals(tmp_path: Path) -> None:
    def way(wall: float, memory: float, scaled: float = 1) -> dict:
        stages = {"load": {"wall_s": wall, "cpu_s": 2 * wall, "peak_mb": memory}}
        network = {"cpu_s": 1.0, "gflop": 50.0, "gflop_per_cpu_s": 50.0, "windows": {"96": 1}, "scaled_by": scaled}
        return {"stages": stages, "network": network}

    peak = {"threads": 2, "matrix_product_gflops": 200.0, "convolution_gflops": 150.0}
    result = {
        "machine": {"torch": "2", "peak": peak},
        "scan": {"shape": [4, 5, 6], "spacing_mm": [1, 1, 2]},
        "ways": {"base standard": way(2, 1000), "original": way(50, 4000, 13.5)},
    }
    table = predict_table(result)
    assert "25.0 times less wall time, 25.0 times less CPU time, 4.0 times less memory" in table
    assert "13.5 × measured" in table and "50%" in table
    rows = [{"of": n, "cpu_s": 3.0, "peak_mb": 1000.0} for n in (100, 200)]
    scale_picture({"model": "tiny", "quality": "fast", "slices": rows, "spacing": rows}, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 1000
