"""Points and label maps out of logits."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.decode import decode_landmarks, largest_components
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.guidance import root_boundary, root_centre
from cardiac_ct_fm.looks import Answer, starts, window_grid

NAMES = ("RCC", "LCC")


def sphere_logits(grid, centres, radius=4.0, height=12.0):
    """Logits whose softmax is a soft-edged sphere per class."""
    points = torch.from_numpy(grid.points())
    channels = [torch.zeros(grid.shape)]
    for centre in centres:
        if centre is None:
            channels.append(torch.full(grid.shape, -height))
            continue
        away = (points - torch.tensor(centre, dtype=torch.float32)).norm(dim=-1)
        channels.append(((radius - away) * 3).clamp(-height, height))
    return torch.stack(channels)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(-6, 6)] * 3), st.sampled_from([0.8, 1.0, 2.0]))
def test_points_are_found_to_a_fraction_of_a_voxel(centre, spacing):
    grid = Grid.centred((3.0, -2.0, 7.0), spacing, (24, 24, 24))
    wanted = np.array([3.0, -2.0, 7.0]) + centre
    found = decode_landmarks(sphere_logits(grid, [tuple(wanted), None]), grid, NAMES)
    assert np.linalg.norm(np.array(found["RCC"].ras_mm) - wanted) < 0.2 * spacing + 0.05
    assert found["RCC"].confidence > 0.6


def test_a_missing_point_keeps_its_name_and_has_no_position():
    grid = Grid.centred((0, 0, 0), 1.0, (24, 24, 24))
    found = decode_landmarks(sphere_logits(grid, [None, (2.0, 1.0, 0.0)]), grid, NAMES)
    assert list(found) == ["RCC", "LCC"]
    assert not found["RCC"].found and found["RCC"].ras_mm is None
    assert found["LCC"].found


def test_of_two_regions_the_larger_is_the_point():
    grid = Grid.centred((0, 0, 0), 1.0, (32, 32, 32))
    logits = sphere_logits(grid, [(-8.0, 0.0, 0.0), None])
    small = sphere_logits(grid, [(9.0, 9.0, 9.0), None], radius=2.0)
    found = decode_landmarks(torch.maximum(logits, small), grid, NAMES)
    assert np.linalg.norm(np.array(found["RCC"].ras_mm) - [-8, 0, 0]) < 0.3


def test_a_larger_region_that_cannot_belong_to_the_same_root_is_not_the_point():
    grid = Grid.centred((0, 0, 0), 1.0, (80, 40, 40))
    at = {"RCC": (-25.0, 8.0, 0.0), "LCC": (-25.0, -10.0, 0.0), "NCC": (-12.0, -6.0, 0.0)}
    logits = sphere_logits(grid, [*at.values(), None, None], radius=3.5)
    stray = sphere_logits(grid, [(30.0, 0.0, 0.0), None, None, None, None], radius=5.0)
    found = decode_landmarks(torch.maximum(logits, stray), grid, ("RCC", "LCC", "NCC", "RCA", "LCA"))
    for name, centre in at.items():
        assert np.linalg.norm(np.array(found[name].ras_mm) - centre) < 0.3
    alone = sphere_logits(grid, [None, at["LCC"], at["NCC"], None, None], radius=3.5)
    found = decode_landmarks(torch.maximum(alone, stray), grid, ("RCC", "LCC", "NCC", "RCA", "LCA"))
    assert found["LCC"].found and found["NCC"].found and not found["RCC"].found


def test_points_of_a_head_without_known_distances_are_the_largest_regions():
    grid = Grid.centred((0, 0, 0), 1.0, (80, 24, 24))
    names = tuple(f"point {i}" for i in range(14))
    logits = sphere_logits(grid, [(-30.0 if i % 2 else 30.0, 0.0, 0.0) if i < 2 else None for i in range(14)])
    found = decode_landmarks(logits, grid, names)
    assert [n for n, p in found.items() if p.found] == ["point 0", "point 1"]


def test_a_speck_is_not_a_point():
    grid = Grid.centred((0, 0, 0), 1.0, (24, 24, 24))
    found = decode_landmarks(sphere_logits(grid, [(0.0, 0.0, 0.0), None], radius=1.0), grid, NAMES)
    assert not found["RCC"].found


def test_only_the_largest_component_of_each_label_stays():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[:4, :4, :4], labels[8:, 8:, 8:], labels[6, 6, 6] = 1, 1, 2
    kept = largest_components(labels)
    assert kept is labels  # a scan's label map is held once
    assert kept[0, 0, 0] == 1 and kept[9, 9, 9] == 0 and kept[6, 6, 6] == 2
    assert not largest_components(np.zeros((3, 3, 3), np.uint8)).any()


@given(st.integers(1, 400), st.sampled_from([32, 64, 96]))
def test_windows_cover_every_voxel_with_their_overlap(length, window):
    first = starts(length, window)
    covered = np.zeros(max(length, window), bool)
    for s in first:
        covered[s : s + window] = True
    assert covered.all() and first[0] == 0
    if length > window:
        assert first[-1] == length - window
        assert np.diff(first).max() <= window * 0.75 + 1


def test_a_look_is_one_window_unless_the_heart_is_longer():
    from cardiac_ct_fm.config import LookConfig

    look = LookConfig("heart", 2.0, 80, ("heart",))
    assert window_grid(look, np.zeros(3)).shape == (80, 80, 80)
    assert window_grid(look, np.zeros(3), np.array([100.0, 160.0, 200.0])).shape == (80, 80, 100)


def root_answer(hinge_points=None):
    """An aorta that stands on a ventricle at the origin, and a second, smaller one beside it, 40 mm higher."""
    grid = Grid.centred((0, 0, 0), 2.0, (48, 48, 64))
    x, _, z = np.moveaxis(grid.points(), -1, 0)
    beside = torch.from_numpy(x > 30)
    low, high = torch.from_numpy(z < 0), torch.from_numpy(z >= 40)
    heart = torch.zeros((8, *grid.shape))
    heart[HEART_LABELS["LV"]][~beside & low] = 5.0
    heart[HEART_LABELS["Aorta"], 20:28, 20:28][:, :, z[0, 0] >= 0] = 5.0
    heart[HEART_LABELS["LV"]][beside & ~high & (torch.from_numpy(z) > 30)] = 5.0
    heart[HEART_LABELS["Aorta"]][beside & high & (torch.from_numpy(z) < 46)] = 5.0
    logits = {"heart": heart}
    if hinge_points is not None:
        logits["hps"] = sphere_logits(grid, [*hinge_points, None, None])
    return Answer(grid, logits)


WRONG = [(40.0, 0.0, 40.0), (44.0, 8.0, 40.0), (36.0, 8.0, 40.0)]
RIGHT = [(-8.0, 0.0, 2.0), (8.0, 8.0, 2.0), (8.0, -8.0, 2.0)]


def test_the_root_lies_where_the_largest_ventricle_meets_the_largest_aorta():
    seen = root_answer()
    boundary = root_boundary(seen)
    assert np.linalg.norm(boundary) < 3
    assert np.linalg.norm(root_centre(seen, boundary) - [0, 0, 5.0]) < 3


def test_a_larger_aorta_that_touches_no_ventricle_does_not_hide_the_root():
    seen = root_answer()
    y = torch.from_numpy(seen.grid.points()[..., 1])
    seen.logits["heart"][HEART_LABELS["Aorta"]][(y < -20) & (torch.from_numpy(seen.grid.points()[..., 2]) > 4)] = 5.0
    assert np.linalg.norm(root_boundary(seen)) < 3


def test_hinge_points_at_a_second_root_do_not_draw_the_look_there():
    seen = root_answer(WRONG)
    assert np.linalg.norm(root_centre(seen, root_boundary(seen)) - [0, 0, 5.0]) < 3
    assert root_centre(seen, None)[0] > 30  # nothing speaks against them where no boundary is seen


def test_hinge_points_near_the_boundary_say_where_the_root_is():
    seen = root_answer(RIGHT)
    assert np.linalg.norm(root_centre(seen, root_boundary(seen)) - np.add(np.mean(RIGHT, 0), [0, 0, 4.0])) < 0.5


def test_a_point_far_from_the_boundary_is_not_found_and_a_fainter_one_near_it_is():
    grid = Grid.centred((0, 0, 0), 2.0, (48, 48, 64))
    names = ("RCC", "LCC", "NCC")
    far = sphere_logits(grid, [WRONG[0], WRONG[1], None])
    near = sphere_logits(grid, [RIGHT[0], None, None])
    near[1:] = near[1:].clamp(max=1.5)
    found = decode_landmarks(torch.maximum(far, near), grid, names, np.zeros(3))
    assert np.linalg.norm(np.subtract(found["RCC"].ras_mm, RIGHT[0])) < 1
    assert not found["LCC"].found and not found["NCC"].found
    assert decode_landmarks(far, grid, names)["LCC"].found
