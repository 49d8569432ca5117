"""What stands around the digital hearts: the same on every grid, on the right side, clear of the heart, varied."""

import math

import pytest
import torch

from cardiac_ct_fm.cohort.canvas import ellipsoid_depth
from cardiac_ct_fm.cohort.noise import refine, resample, smooth_control, smooth_field
from cardiac_ct_fm.cohort.surroundings import HeartExtent, SurroundingsParameters, background, draw_surroundings
from cardiac_ct_fm.errors import ConfigError

HEART = HeartExtent(front=55.0, back=-50.0, floor=-50.0)


def patient(seed: int, sex: str = "M") -> SurroundingsParameters:
    return draw_surroundings(torch.Generator().manual_seed(seed), sex, HEART)


def grid(n: int, spacing: float, centre=(0.0, 0.0, 0.0), turn_deg: float = 0.0) -> torch.Tensor:
    axis = (torch.arange(n) - (n - 1) / 2) * spacing
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    rotation = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return points @ rotation.T + torch.tensor(centre)


def heart(points: torch.Tensor) -> torch.Tensor:
    """An ellipsoid of 110 × 100 × 95 mm, its distance saturated as the real one is."""
    return ellipsoid_depth(points, (0.0, 2.0, 0.0), (55.0, 50.0, 47.0)).clamp(-25, 25)


def painted(points: torch.Tensor, who: SurroundingsParameters) -> tuple[torch.Tensor, torch.Tensor]:
    return background(points, heart(points), who)


@pytest.fixture(scope="module")
def chest() -> list[tuple[SurroundingsParameters, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Eight patients on 384 mm at 4 mm: parameters, points, HU, lung mask."""
    points = grid(96, 4.0)
    return [(who, points, *painted(points, who)) for who in (patient(s, "FM"[s % 2]) for s in range(8))]


def test_same_seed_is_the_same_patient_and_another_seed_another():
    points = grid(24, 6.0)
    one, _ = painted(points, patient(3))
    same, _ = painted(points, patient(3))
    other, _ = painted(points, patient(4))
    assert torch.equal(one, same)
    assert (one - other).abs().mean() > 60


def test_hu_are_finite_and_within_the_scale_of_a_scanner(chest):
    for _, _, hu, lung in chest:
        assert torch.isfinite(hu).all()
        assert hu.min() >= -1024 and hu.max() <= 3071
        assert lung.dtype == torch.bool and lung.shape == hu.shape


def test_a_patient_looks_the_same_at_one_and_at_two_millimetres():
    who = patient(5)
    coarse, _ = painted(grid(32, 2.0, (30.0, -20.0, 10.0)), who)
    fine, _ = painted(grid(64, 1.0, (30.0, -20.0, 10.0)), who)
    averaged = torch.nn.functional.avg_pool3d(fine[None, None], 2)[0, 0]
    assert torch.corrcoef(torch.stack([coarse.flatten(), averaged.flatten()]))[0, 1] > 0.97
    assert (coarse - averaged).abs().median() < 12


def test_a_turned_grid_shows_the_same_patient():
    who = patient(6)
    turned = grid(32, 2.0, (20.0, 0.0, -30.0), turn_deg=20.0)
    seen, _ = painted(turned, who)
    straight, _ = painted(grid(80, 2.0, (20.0, 0.0, -30.0)), who)
    reference = smooth_field(turned, straight[None], 158.0, (20.0, 0.0, -30.0))[0]
    assert torch.corrcoef(torch.stack([seen.flatten(), reference.flatten()]))[0, 1] > 0.96


def test_lungs_are_on_both_sides_dark_and_clear_of_the_heart(chest):
    for who, points, hu, lung in chest:
        x = points[..., 0] - who.trunk.midline
        litres = [float((lung & side).sum()) * 0.064 / 1000 for side in (x > 0, x < 0)]
        assert all(0.4 < v < 4.5 for v in litres), litres
        assert hu[lung].median() < -600
        assert not (lung & (heart(points) > 0)).any()
        assert not lung[(points[..., 2] < who.trunk.dome_middle - 150)].any()


def test_liver_is_on_the_right_and_under_the_diaphragm(chest):
    for who, points, hu, _ in chest:
        z = points[..., 2] - who.trunk.dome_right
        slab = (z < -20) & (z > -45) & (points[..., 1].abs() < 50)
        liver = (hu - who.abdomen.liver).abs() < 15
        right = (liver & slab & (points[..., 0] > who.trunk.midline + 30)).sum()
        left = (liver & slab & (points[..., 0] < who.trunk.midline - 40)).sum()
        assert right > 1000
        assert right > 3 * left


def test_spine_stands_behind_the_heart_and_bone_never_enters_it(chest):
    for who, points, hu, _ in chest:
        x, y, z = points.unbind(-1)
        column = ((x - who.trunk.spine_x).abs() < 12) & ((y - who.trunk.spine_y).abs() < 10) & (z.abs() < 90)
        assert hu[column].mean() > 60
        assert not ((hu > 300) & (heart(points) > 1)).any()


def test_ribs_repeat_along_the_flank_at_the_pitch_of_the_patient():
    who = patient(1)
    z = torch.arange(-80.0, 60.0, 1.0)
    y = torch.arange(0.0, 4.0, 1.0)
    x = torch.arange(who.trunk.midline + 90, who.trunk.midline + 190, 1.0)
    points = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1)
    hu, _ = painted(points, who)
    signal = (hu > 250).float().sum((0, 1))
    signal = signal - signal.mean()
    power = torch.fft.rfft(signal, n=1024).abs()
    period = 1024 / float(power[20:100].argmax() + 20)
    assert period == pytest.approx(who.bones.rib_pitch, rel=0.15)


def test_trunks_are_as_wide_and_deep_as_adults():
    widths, depths = [], []
    for seed in range(24):
        who = patient(seed, "FM"[seed % 2])
        axis_x, axis_y = torch.arange(-260.0, 300.0, 2.0), torch.arange(-260.0, 240.0, 2.0)
        points = torch.stack(torch.meshgrid(axis_x, axis_y, torch.tensor([-4.0, -2.0]), indexing="ij"), -1)
        hu, _ = painted(points, who)
        body = hu[..., 0] > -250
        body &= (points[..., 0, 0] - who.trunk.midline).abs() < who.trunk.half_width + 65
        widths.append(float(body.any(1).sum()) * 2)
        depths.append(float(body.any(0).sum()) * 2)
    assert 300 < sum(widths) / 24 < 390
    assert 210 < sum(depths) / 24 < 290
    assert torch.tensor(widths).std() > 15 and torch.tensor(depths).std() > 12


def test_around_the_body_is_air_and_under_it_a_table():
    who = patient(2)
    above = torch.tensor([0.0, who.trunk.front + 220.0, 0.0])
    hu, lung = painted(grid(8, 4.0) + above, who)
    assert (hu == -1024).all() and not lung.any()
    below = torch.tensor([who.trunk.midline, who.trunk.back - 1.7 * who.trunk.muscle - 0.7 * who.trunk.fat - 30, 0.0])
    hu, _ = painted(grid(16, 2.0) + below, who)
    assert -1000 < hu.median() < -900


def test_inside_the_heart_there_is_only_fat_to_paint_over():
    points = grid(16, 1.0)
    hu, lung = painted(points, patient(9))
    assert not lung.any()
    assert -130 < hu.median() < 60


def test_the_spine_stands_behind_and_to_the_right_of_the_aorta():
    for seed in range(20):
        aorta = tuple((-12.0, -58.0, float(z)) for z in range(-150, 40, 10))
        who = draw_surroundings(torch.Generator().manual_seed(seed), "F", HeartExtent(55.0, -48.0, -50.0, aorta))
        x, y = who.trunk.spine_x + 12, who.trunk.spine_y + 58
        assert x > 5 and y < -5
        assert 26 < math.hypot(x, y) < 45


def test_blood_in_the_lungs_has_the_density_asked_for():
    who = draw_surroundings(torch.Generator().manual_seed(1), "M", HEART, lung_vessel_hu=333.0)
    assert who.lungs.vessel == 333.0


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4, 4, 2), (1, 4, 4, 3)])
def test_points_that_are_no_grid_are_refused(shape):
    with pytest.raises(ConfigError, match="points have shape"):
        background(torch.zeros(shape), torch.zeros(shape[:3]), patient(0))


def test_an_unknown_sex_is_refused_by_name():
    with pytest.raises(ConfigError, match="'x'"):
        draw_surroundings(torch.Generator(), "x")


def test_smooth_field_is_exact_for_linear_functions_and_constant_beyond_its_cube():
    axis = torch.linspace(-50, 50, 6)
    ramp = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")) + 7
    points = torch.tensor([[[[-57.0, 3.0, 18.0], [1.0, 11.5, -30.0]]]]) + 7
    field = smooth_field(points, ramp, 100.0, (7.0, 7.0, 7.0))
    expected = points.clone()
    expected[..., 0, 0] = -43
    assert torch.allclose(field, expected.permute(3, 0, 1, 2), atol=1e-4)


def test_smooth_control_grids_have_unit_spread_and_no_kinks():
    control = smooth_control(torch.Generator().manual_seed(0), 3, 25, 4)
    assert control.shape == (3, 97, 97, 97)
    assert control.std() == pytest.approx(1.0, abs=0.05)
    kinked = refine(control[:, ::4, ::4, ::4], 4, "linear")
    second, kink = (float(c.diff(n=2, dim=1).abs().max() / c.diff(dim=1).abs().max()) for c in (control, kinked))
    assert second < 0.7 < 1.0 < kink


def test_resampling_keeps_straight_lines_to_the_ends():
    line = torch.linspace(0, 10, 11)[:, None, None].expand(11, 5, 5)
    finer = resample(line, (21, 5, 5), "cubic")
    assert torch.allclose(finer[:, 0, 0], torch.linspace(0, 10, 21), atol=1e-5)


def test_impossible_control_grids_are_refused():
    with pytest.raises(ConfigError, match="extent_mm"):
        smooth_field(torch.zeros(2, 2, 2, 3), torch.zeros(1, 3, 3, 3), 0.0)
    with pytest.raises(ConfigError, match="control grid"):
        smooth_field(torch.zeros(2, 2, 2, 3), torch.zeros(3, 3, 3), 10.0)
    with pytest.raises(ConfigError, match="refine factor"):
        refine(torch.zeros(1, 3, 3, 3), 0)
