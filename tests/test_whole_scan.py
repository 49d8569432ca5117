"""Exported scans: made a few slices at a time, and as if they had been made at once."""

import dataclasses

import numpy as np
import pytest
import torch

from cardiac_ct_fm.cohort import whole_scan
from cardiac_ct_fm.cohort.export import render_scan
from cardiac_ct_fm.cohort.image import acquire
from cardiac_ct_fm.cohort.scanner import draw_scanner
from cardiac_ct_fm.cohort.sites import draw_site_case
from cardiac_ct_fm.cohort.whole_scan import acquire_scan

SPACING, SIZE = 0.8, 64
SLAB = 8
"""Scans had a seam every so many slices before 2026-11-24."""
CENTRE = (3.0, -4.0, 11.0)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patient(noise_hu: float, seed: int = 700_000):
    """A patient of site 7 with 2 mm slices, 44 mm of the heart; another ``seed`` changes nothing but its noise."""
    case = draw_site_case(7, 700_000)
    scanner = dataclasses.replace(
        case.scanner, slice_mm=2.0, noise_hu=noise_hu, streaks=0.0, contrast=((), ()), scale=1.0, z_range=(-25.0, 20.0)
    )
    renamed = dataclasses.replace(case.heart.patient, seed=seed)
    return dataclasses.replace(case, heart=dataclasses.replace(case.heart, patient=renamed), scanner=scanner)


def scan(noise_hu: float, seed: int = 700_000) -> np.ndarray:
    return render_scan(patient(noise_hu, seed), SPACING, SIZE).volume.data.astype(np.float64)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.fixture(scope="module")
def quiet() -> np.ndarray:
    return scan(0.0)


@pytest.fixture(scope="module")
def noise(quiet) -> np.ndarray:
    return scan(25.0) - quiet


def test_noise_goes_on_from_slab_to_slab(noise):
    beside = [alike(noise[..., k], noise[..., k + 1]) for k in range(noise.shape[2] - 1)]
    borders = beside[SLAB - 1 :: SLAB]
    inside = [c for k, c in enumerate(beside) if (k + 1) % SLAB]
    assert len(borders) >= 5
    assert np.mean(inside) > 0.5
    assert np.mean(borders) == pytest.approx(np.mean(inside), abs=0.05)


def test_noise_is_as_loud_at_the_borders_of_slabs(noise):
    loud = noise.std((0, 1))
    assert loud.max() < 1.2 * loud.min()


def test_patients_whose_seeds_differ_by_a_slab_have_other_noise(quiet, noise):
    other = scan(25.0, 700_000 + SLAB) - quiet
    assert abs(alike(noise[..., SLAB : 2 * SLAB], other[..., :SLAB])) < 0.05
    assert abs(alike(noise, other)) < 0.05


def test_a_scan_is_the_look_of_its_size(quiet):
    case = patient(0.0)
    grid = render_scan(case, SPACING, SIZE).volume.grid
    image, _ = case.look(torch.from_numpy(np.asarray(grid.centre_ras)).float(), SPACING, grid.shape)
    error = np.sqrt(((quiet - image.numpy()) ** 2).mean((0, 1)))[SLAB:-SLAB]
    # the body is interpolated from coarse points that lie elsewhere in a look of another size
    assert error.max() < 5 and np.median(error) < 1


def test_the_scanner_makes_the_same_of_some_slices_and_of_all():
    body = (torch.randn(24, 20, 52, generator=rng(1)) * 300).clamp(-1024, 3500).round()
    body[8:14, 5:9, 10:40] = 1800.0
    scanners = [draw_scanner(rng(s), 2.0) for s in range(40)]
    assert any(s.motion_share > 0 for s in scanners) and any(s.slice_mm > 2 for s in scanners)
    for seed, drawn in enumerate(scanners):
        silent = dataclasses.replace(drawn, noise_hu=0.0, texture_hu=0.0, photon_starvation=0.0)
        at_once = acquire(body, 1.0, silent, rng(seed), CENTRE)
        in_parts = acquire_scan(body.numpy().astype(np.int16), 1.0, silent, rng(seed), CENTRE)
        assert np.abs(in_parts - at_once.numpy()).max() <= 1.0, seed


@pytest.mark.parametrize("slab", [4, 7, 52])
def test_a_scan_does_not_depend_on_the_slices_that_are_made_at_once(slab, monkeypatch):
    body = (torch.randn(24, 20, 52, generator=rng(2)) * 300).clamp(-1024, 3500).to(torch.int16).numpy()
    scanner = dataclasses.replace(
        draw_scanner(rng(3), 2.0), texture_hu=5.0, photon_starvation=8.0, motion_share=0.4, streaks=1.0, slice_mm=2.5
    )
    as_it_is = acquire_scan(body, 1.0, scanner, rng(0), CENTRE)
    monkeypatch.setattr(whole_scan, "SLAB", slab)
    other = acquire_scan(body, 1.0, scanner, rng(0), CENTRE)
    assert np.abs(as_it_is - other).max() <= 1


@pytest.mark.parametrize("slice_mm", [0.6, 1.0, 3.0])
def test_noise_has_the_loudness_and_grain_of_a_look(slice_mm):
    flat = torch.full((64, 64, 64), 40.0)
    scanner = dataclasses.replace(
        draw_scanner(rng(5), 1.0), noise_hu=25.0, slice_mm=slice_mm, fov_shape="none", z_range=(-400.0, 400.0),
        texture_hu=0.0, photon_starvation=0.0, contrast=((), ()), cupping_hu=0.0, motion_share=0.0,
    )  # fmt: skip
    look = acquire(flat, 0.8, scanner, rng(1)).numpy()
    whole = acquire_scan(flat.numpy().astype(np.int16), 0.8, scanner, rng(1))
    assert whole.std() == pytest.approx(look.std(), rel=0.05)
    for axis in range(3):
        pairs = [alike(np.delete(image, 0, axis), np.delete(image, -1, axis)) for image in (look.astype(float), whole)]
        assert pairs[0] == pytest.approx(pairs[1], abs=0.03)
