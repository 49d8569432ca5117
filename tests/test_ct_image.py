"""The scanner of the cohort: what it does to known images, in HU and millimetres."""

from dataclasses import replace

import pytest
import torch

from cardiac_ct_fm.cohort.image import acquire
from cardiac_ct_fm.cohort.scanner import ScannerParameters, draw_scanner
from cardiac_ct_fm.cohort.streaks import dense_streaks
from cardiac_ct_fm.errors import ConfigError

CLEAN = ScannerParameters(
    pixel_mm=0.4,
    slice_mm=0.6,
    slice_phase=0.3,
    fwhm_mm=0.7,
    noise_hu=0.0,
    peak_per_mm=0.3,
    whiteness=0.1,
    texture_hu=0.0,
    photon_starvation=0.0,
    streaks=0.0,
    cupping_hu=0.0,
    scale=1.0,
    offset_hu=0.0,
    contrast=((), ()),
    motion_mm=(0.0, 0.0, 0.0),
    motion_share=0.0,
    fov_shape="none",
    fov_radius=100.0,
    fov_centre=(0.0, 0.0),
    z_range=(-500.0, 500.0),
    pad_hu=-1024.0,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edge(axis: int, n: int = 40) -> torch.Tensor:
    """0 HU on one side, 400 HU on the other, across ``axis``."""
    step = torch.zeros(n)
    step[n // 2 :] = 400.0
    return step.view([-1 if a == axis else 1 for a in range(3)]).expand(n, n, n).contiguous()


def rise_mm(image: torch.Tensor, axis: int, spacing: float) -> float:
    """Distance between 10 % and 90 % of an edge of 400 HU, by linear interpolation."""
    line = image.movedim(axis, 0).flatten(1).mean(1)
    positions = []
    for level in (40.0, 360.0):
        i = int((line < level).sum()) - 1
        positions.append(i + (level - float(line[i])) / float(line[i + 1] - line[i]))
    return (positions[1] - positions[0]) * spacing


def test_a_clean_scanner_keeps_flat_regions():
    flat = torch.full((20, 20, 20), 123.0)
    assert torch.allclose(acquire(flat, 1.0, CLEAN, rng()), flat, atol=1e-3)


def test_thick_slices_blur_along_the_body_and_only_there():
    thick = replace(CLEAN, slice_mm=4.0)
    thin_z = rise_mm(acquire(edge(2), 1.0, CLEAN, rng()), 2, 1.0)
    thick_z = rise_mm(acquire(edge(2), 1.0, thick, rng()), 2, 1.0)
    thick_x = rise_mm(acquire(edge(0), 1.0, thick, rng()), 0, 1.0)
    assert thick_z > 3.0 > thin_z
    assert thick_x == pytest.approx(rise_mm(acquire(edge(0), 1.0, CLEAN, rng()), 0, 1.0), abs=0.05)


@pytest.mark.parametrize("fwhm", [0.8, 1.4, 2.0])
def test_in_plane_edges_are_as_wide_as_kernel_and_resampling_make_them(fwhm):
    measured = rise_mm(acquire(edge(0, 64), 0.5, replace(CLEAN, fwhm_mm=fwhm), rng()), 0, 0.5)
    # 10–90 % rise of a Gaussian edge is 2.563 SD; variances of kernel and of the 0.5 mm triangle add
    expected = 2.563 * ((fwhm / 2.355) ** 2 + 0.5**2 / 6) ** 0.5
    assert measured == pytest.approx(expected, rel=0.12)


def test_noise_is_averaged_away_in_coarser_looks():
    flat = torch.zeros(48, 48, 48)
    noisy = replace(CLEAN, noise_hu=30.0)
    spread = [float(acquire(flat, s, noisy, rng()).std()) for s in (0.5, 1.0, 2.0, 4.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.25 * spread[0]
    assert 12 < spread[0] < 30


def test_white_noise_of_a_resampled_scan_shrinks_as_interpolation_shrinks_it():
    flat = torch.zeros(48, 48, 48)
    resampled = replace(CLEAN, noise_hu=30.0, pixel_mm=1.5, slice_mm=1.5, whiteness=1.0, peak_per_mm=5.0)
    measured = float(acquire(flat, 1.5, resampled, rng()).std())
    # linear interpolation at random positions leaves (2/3)^(3/2) = 0.54 of the SD of white noise
    assert measured == pytest.approx(30 * 0.54, rel=0.2)


def test_the_grain_of_a_sharp_kernel_has_little_slow_noise():
    flat = torch.zeros(64, 64, 64)
    grainy = replace(CLEAN, noise_hu=30.0, whiteness=0.0, peak_per_mm=0.35)
    power = torch.fft.fftn(acquire(flat, 0.7, grainy, rng()), dim=(0, 1)).abs().square().mean(-1)
    f = torch.fft.fftfreq(64, 0.7)
    radius = (f[:, None] ** 2 + f[None, :] ** 2).sqrt()
    slow, middle = power[(radius > 0.01) & (radius < 0.08)].mean(), power[(radius > 0.2) & (radius < 0.35)].mean()
    assert middle > 2 * slow


def test_the_same_generator_gives_the_same_noise_and_another_does_not():
    flat = torch.zeros(16, 16, 16)
    noisy = replace(CLEAN, noise_hu=20.0, texture_hu=4.0, photon_starvation=3.0)
    one = acquire(flat, 1.0, noisy, rng(1))
    assert torch.equal(one, acquire(flat, 1.0, noisy, rng(1)))
    assert not torch.equal(one, acquire(flat, 1.0, noisy, rng(2)))


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_outside_of_the_field_of_view_there_is_padding_where_the_body_has_it(shape):
    flat = torch.zeros(40, 40, 40)
    cut = replace(CLEAN, fov_shape=shape, fov_radius=30.0, fov_centre=(10.0, 0.0), pad_hu=-3024.0)
    image = acquire(flat, 2.0, cut, rng())
    shifted = acquire(flat, 2.0, cut, rng(), centre_mm=(20.0, 0.0, 0.0))
    assert (image == -3024).any() and (image == 0).any()
    assert torch.equal((image == 0)[10:], (shifted == 0)[:-10])
    x = (torch.arange(40) - 19.5) * 2
    row = image[:, 20, 20] == 0
    assert torch.equal(row, (x - 10).abs() <= 30)


def test_the_scan_ends_at_its_first_and_last_slice():
    image = acquire(torch.zeros(8, 8, 40), 2.0, replace(CLEAN, z_range=(-15.0, 21.0)), rng())
    z = (torch.arange(40) - 19.5) * 2
    assert torch.equal(image[4, 4] == 0, (z >= -15) & (z <= 21))


def test_contrast_warps_keep_the_order_of_tissues():
    flat_blur = replace(CLEAN, fwhm_mm=0.0)
    for seed in range(40):
        scanner = draw_scanner(rng(seed), 2.0)
        warped = replace(flat_blur, contrast=scanner.contrast)
        levels = torch.tensor([-900.0, -100.0, 30.0, 90.0, 200.0, 400.0, 800.0])
        seen = torch.stack([acquire(torch.full((4, 4, 4), v), 1.0, warped, rng()).mean() for v in levels.tolist()])
        assert (seen.diff() > 0).all()


def test_streaks_come_from_dense_objects_only_and_grow_towards_them():
    soft = torch.full((64, 64, 16), 60.0)
    assert (dense_streaks(soft, 2.0, rng()) == 0).all()
    soft[28:36, 10:18] = 1500.0
    error = dense_streaks(soft, 2.0, rng())
    near, far = error[24:40, 18:26].abs().mean(), error[24:40, 50:58].abs().mean()
    assert near > 2 * far > 0
    assert error.abs().max() <= 500


def test_a_beating_heart_leaves_a_second_contour():
    still = acquire(edge(0), 1.0, CLEAN, rng())
    beating = acquire(edge(0), 1.0, replace(CLEAN, motion_mm=(4.0, 0.0, 0.0), motion_share=0.5), rng())
    assert rise_mm(beating, 0, 1.0) > rise_mm(still, 0, 1.0) + 1.0


def test_the_dial_of_randomisation_widens_the_scanners():
    def spread(strength: float) -> float:
        noise = torch.tensor([draw_scanner(rng(s), strength).noise_hu for s in range(60)])
        return float(noise.std())

    assert spread(0.0) < spread(1.0) < spread(2.0)
    calm = [draw_scanner(rng(s), 0.0) for s in range(60)]
    assert all(c.motion_share == 0 and not c.contrast[0] and c.texture_hu == 0 and c.slice_mm <= 1.25 for c in calm)
    wild = [draw_scanner(rng(s), 2.0) for s in range(60)]
    assert any(w.motion_share > 0 for w in wild) and any(w.contrast[0] for w in wild)


@pytest.mark.parametrize("strength", [-0.1, 2.5])
def test_a_dial_out_of_range_is_refused(strength):
    with pytest.raises(ConfigError, match="strength"):
        draw_scanner(rng(), strength)


def test_images_that_are_no_volume_are_refused():
    with pytest.raises(ConfigError, match="expected"):
        acquire(torch.zeros(4, 4), 1.0, CLEAN, rng())
    with pytest.raises(ConfigError, match=r"0\.0 mm"):
        acquire(torch.zeros(4, 4, 4), 0.0, CLEAN, rng())


def test_every_drawn_scanner_gives_hu_of_a_scanner():
    hu = torch.randn(24, 24, 24, generator=rng()) * 300
    for seed in range(30):
        image = acquire(hu, 2.0, draw_scanner(rng(seed), 2.0), rng(seed))
        assert torch.isfinite(image).all()
        assert image.max() <= 3071
        assert ((image >= -1024) | (image == -3024)).all()
