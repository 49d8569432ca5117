"""The second look at landmarks: axes of the patches, what lies in them, and points from the answers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import FURTHEST_MM, HEADS, HINGE_POINTS
from cardiac_ct_fm.config import HeadConfig
from cardiac_ct_fm.decode import fit
from cardiac_ct_fm.errors import ConfigError, UsageError
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark import Landmark
from cardiac_ct_fm.refinement import EDGE, _believed, around, frames, lattice, looks_again, patches, places, refined
from cardiac_ct_fm.refiner import PointRefiner
from cardiac_ct_fm.training.digital import held_out_case, labelled_scan
from recipes.turned_roots import turned

NAMES = HEADS["hps"].classes
PAIRS = [pair for pair in combinations(NAMES, 2) if frozenset(pair) in FURTHEST_MM]
HINGES = torch.tensor([[11.0, 3.0, 1.0], [-7.0, 9.0, 0.0], [-3.0, -12.0, -1.0]])
OSTIUM = torch.tensor([[12.0, 2.0, 14.0]])

turns = hnp.arrays(float, 3, elements=st.floats(-3, 3)).map(Rotation.from_rotvec)


@settings(max_examples=50, deadline=None)
@given(turn=turns, shift=hnp.arrays(float, 3, elements=st.floats(-200, 200)))
def test_axes_are_a_rotation_and_go_with_the_root(turn: Rotation, shift: np.ndarray) -> None:
    points = torch.cat([HINGES, OSTIUM]).double()
    axes = frames(points, HINGES.double())
    assert torch.allclose(axes.mT @ axes, torch.eye(3).double().expand(4, 3, 3), atol=1e-9)
    assert torch.linalg.det(axes).numpy() == pytest.approx(1.0)
    matrix = torch.from_numpy(turn.as_matrix())
    moved = frames(points @ matrix.T + torch.from_numpy(shift), HINGES.double() @ matrix.T + torch.from_numpy(shift))
    assert torch.allclose(moved, matrix @ axes, atol=1e-9)


def test_down_is_toward_the_ventricle_and_outward_leaves_the_axis() -> None:
    case = held_out_case(0)
    marks = case.heart.landmarks
    hinges = torch.stack([marks[name] for name in HINGE_POINTS])
    axes = frames(torch.stack([marks[name] for name in NAMES]), hinges)
    down, middle = axes[0, :, 2], hinges.mean(0)
    for ostium in ("RCA", "LCA"):
        assert float((marks[ostium] - middle) @ down) < -3.0
    for k, name in enumerate(NAMES):
        assert float((marks[name] - middle) @ axes[k, :, 0]) > 3.0


def test_a_patch_shows_the_image_along_its_axes() -> None:
    grid = Grid.centred([5.0, -3.0, 8.0], 0.9, (70, 72, 74))
    direction = torch.tensor([0.3, -0.5, 0.8])
    image = torch.from_numpy(grid.points()) @ direction
    to_voxel = torch.from_numpy(np.linalg.inv(grid.affine)).float()
    points = HINGES + torch.tensor([5.0, -3.0, 8.0])
    axes = frames(points, points)
    seen = patches(image, to_voxel, points, axes)
    assert seen.shape == (3, 1, EDGE, EDGE, EDGE)
    for k in range(3):
        expected = (lattice() @ axes[k].T + points[k]) @ direction
        assert torch.allclose(seen[k, 0], expected, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(offset=hnp.arrays(np.float32, 3, elements=st.floats(-7, 7, width=32)))
def test_a_point_comes_back_to_a_tenth_of_a_voxel_and_a_second_peak_does_not_pull_it(offset: np.ndarray) -> None:
    target = torch.from_numpy(offset)
    away = (lattice() - target).square().sum(-1)
    other = (lattice() + torch.where(target >= 0, 9.0, -9.0)).square().sum(-1)
    logits = torch.logsumexp(torch.stack([-away / 2, -other / 2 - 1.0]), 0)[None]
    at, sure = places(logits)
    assert torch.allclose(at[0], target, atol=0.1)
    assert 0.5 < float(sure[0]) < 0.8  # e⁻¹ of the peak lies elsewhere


def test_a_certain_place_has_a_confidence_of_one_at_most() -> None:
    logits = 60 * torch.randn(200, EDGE, EDGE, EDGE, generator=torch.Generator().manual_seed(0))
    assert float(places(logits)[1].max()) == 1.0


def test_the_part_that_is_resampled_holds_every_patch_on_the_same_lattice() -> None:
    grid = Grid.centred([0.0, 0.0, 0.0], 1.0, (64, 64, 64))
    points = torch.cat([HINGES, OSTIUM]).double()
    part = around(points.numpy(), grid)
    corners = torch.einsum("nij,abcj->nabci", frames(points, HINGES.double()), lattice().double())
    assert part.contains((corners + points[:, None, None, None]).numpy()).all()
    first = grid.voxel(part.world([0.0, 0.0, 0.0]))
    assert first == pytest.approx(np.round(first))


@pytest.fixture(scope="module")
def model() -> ccf.CardiacCTModel:
    return ccf.from_pretrained("cardiac_swin_tiny")


@pytest.mark.parametrize("seed", [3, 11])
def test_published_weights_find_hinge_points_that_guesses_missed_by_millimetres(
    model: ccf.CardiacCTModel, seed: int
) -> None:
    case = turned(seed, 0.0, {})
    marks = {name: mark.double().numpy() for name, mark in case.heart.landmarks.items()}
    middle = np.mean([marks[name] for name in HINGE_POINTS], axis=0)
    scan = labelled_scan(case, seed, 0, middle, 1.0, (80, 80, 80))
    shown = {name: mark for name, mark in scan.landmarks["hps"].items() if mark.found}
    rng = np.random.default_rng(seed)
    guesses = {name: Landmark(name, True, tuple(marks[name] + rng.normal(0, 2.0, 3)), 0.9) for name in shown}
    guesses = {name: guesses.get(name, Landmark.missing(name)) for name in NAMES}
    seen = refined(model, "hps", guesses, scan.volume, scan.volume.grid)

    def errors(points: dict[str, Landmark]) -> list[float]:
        return [float(np.linalg.norm(np.array(points[name].ras_mm) - marks[name])) for name in shown]

    assert list(seen) == list(NAMES)
    assert np.mean(errors(seen)) < 0.6 * np.mean(errors(guesses))
    assert max(errors(seen)) < 4.0


def test_without_a_hinge_point_nothing_moves(model: ccf.CardiacCTModel) -> None:
    points = {name: Landmark(name, True, (float(i), 9.0, 4.0), 0.7) for i, name in enumerate(NAMES)}
    points["LCC"] = Landmark.missing("LCC")
    scan = labelled_scan(held_out_case(0), 0, 0, np.zeros(3), 2.0, (32, 32, 32))
    assert refined(model, "hps", points, scan.volume, scan.volume.grid) == points


class Stub(torch.nn.Module):
    """Is sure that every point lies so far from its patch's middle, along the patch's axes."""

    def __init__(self, *offset_mm: float) -> None:
        super().__init__()
        self.offset = torch.tensor(offset_mm)

    def forward(self, patches: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        return ((lattice() - self.offset).square().sum(-1) / -2).expand(len(patches), -1, -1, -1)


@pytest.fixture
def seen_again(monkeypatch: pytest.MonkeyPatch, model: ccf.CardiacCTModel) -> Callable[..., dict[str, Landmark]]:
    """What a second look with :class:`Stub` makes of points around the first held-out patient's root."""
    case = held_out_case(0)
    middle = torch.stack([case.heart.landmarks[name] for name in HINGE_POINTS]).mean(0).double().numpy()
    scan = labelled_scan(case, 0, 0, middle, 2.0, (32, 32, 32))

    def look(points: dict[str, Landmark], *offset_mm: float) -> dict[str, Landmark]:
        monkeypatch.setitem(model.refiners._modules, "hps", Stub(*offset_mm))
        return refined(model, "hps", points, scan.volume, scan.volume.grid)

    return look


def root(case: int = 0) -> dict[str, Landmark]:
    """The true points of a held-out patient, each half sure."""
    marks = held_out_case(case).heart.landmarks
    return {name: Landmark(name, True, tuple(marks[name].tolist()), 0.5) for name in NAMES}


def test_points_move_along_their_own_axes_and_their_confidences_multiply(seen_again) -> None:
    before = root()
    after = seen_again(before, 1.0, 0.0, 0.0)
    hinges = np.array([before[name].ras_mm for name in HINGE_POINTS])
    for name in HINGE_POINTS:
        start, end = np.array(before[name].ras_mm), np.array(after[name].ras_mm)
        outward = (start - hinges.mean(0)) / np.linalg.norm(start - hinges.mean(0))
        assert (end - start) @ outward == pytest.approx(2.0, abs=0.1)  # two passes
        assert 0.4 < after[name].confidence < 0.5


@pytest.mark.parametrize("offset", [(7.0, 0.0, 0.0), (0.0, 0.0, 11.0)])
def test_a_place_further_off_than_any_training_looked_is_not_believed(seen_again, offset) -> None:
    before = root()
    after = seen_again(before, *offset)
    assert [after[name].ras_mm for name in NAMES] == [before[name].ras_mm for name in NAMES]
    assert all(after[name].confidence < before[name].confidence for name in NAMES)


def test_a_second_pass_that_is_less_sure_and_goes_elsewhere_is_not_believed(monkeypatch, model, seen_again) -> None:
    """Of these two passes the second is flat but for a faint place 5 mm further on."""
    first, second = Stub(1.0, 0.0, 0.0), Stub(5.0, 0.0, 0.0)
    calls: list[int] = []

    class Passes(torch.nn.Module):
        def forward(self, patches: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
            calls.append(len(calls))
            return first(patches, kinds) if len(calls) == 1 else second(patches, kinds).clamp(min=-1.0)

    before = root()
    once = seen_again(before, 1.0, 0.0, 0.0)  # both passes go on by 1 mm, and are as sure
    monkeypatch.setattr(sys.modules[__name__], "Stub", lambda *_: Passes())
    after = seen_again(before, 0.0)
    assert calls == [0, 1]
    for name in HINGE_POINTS:
        start, twice, end = (np.array(points[name].ras_mm) for points in (before, once, after))
        assert np.linalg.norm(end - start) == pytest.approx(np.linalg.norm(twice - start) / 2, abs=0.1)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(float, (5, 3), elements=st.floats(-10, 10)))
def test_whatever_moves_the_points_that_are_kept_can_belong_to_one_root(moves: np.ndarray) -> None:
    """A point that goes back to its first place may be too far from one that moved: then that goes back, too."""
    first = root()
    middle = np.mean([p.ras_mm for p in first.values()], axis=0)
    room = min(FURTHEST_MM[frozenset(pair)] / math.dist(*(first[n].ras_mm for n in pair)) for pair in PAIRS)
    grown = {n: middle + 0.98 * room * (np.array(p.ras_mm) - middle) for n, p in first.items()}  # just one root
    wide = {n: replace(p, ras_mm=tuple(grown[n])) for n, p in first.items()}
    seen = {n: replace(p, ras_mm=tuple(np.array(p.ras_mm) + m)) for (n, p), m in zip(wide.items(), moves, strict=True)}
    kept = _believed(wide, seen, Grid.centred(middle, 1.0, (120, 120, 120)))
    assert all(fit(a, b) for a in wide.values() for b in wide.values())
    assert all(fit(a, b) for a in kept.values() for b in kept.values())
    assert all(kept[n].ras_mm in (wide[n].ras_mm, seen[n].ras_mm) for n in NAMES)


def test_a_place_outside_of_the_scan_is_not_believed(seen_again) -> None:
    """The scan ends 32 mm from its middle; the ostium lies just inside."""
    before = root()
    hinges = np.array([before[name].ras_mm for name in HINGE_POINTS])
    edge = hinges.mean(0) + np.array([31.0, 0.0, 0.0])
    before["RCA"] = Landmark("RCA", True, tuple(edge), 0.5)
    after = seen_again(before, 2.0, 0.0, 0.0)
    assert after["RCA"].ras_mm == before["RCA"].ras_mm
    assert after["NCC"].ras_mm != before["NCC"].ras_mm


def test_hinge_points_on_one_line_give_no_axes(seen_again) -> None:
    before = root()
    for i, name in enumerate(HINGE_POINTS):
        before[name] = Landmark(name, True, (10.0 * i, 5.0 * i, 0.0), 0.5)
    assert seen_again(before, 1.0, 0.0, 0.0) == before


def test_a_coarse_first_look_is_not_followed_by_a_second(model: ccf.CardiacCTModel) -> None:
    at = {mm: Grid.centred([0.0, 0.0, 0.0], mm, (16, 16, 16)) for mm in (1.0, 2.0)}
    assert looks_again(model, "hps", at[1.0]) and not looks_again(model, "hps", at[2.0])
    assert not looks_again(model, "ms", at[1.0])


def test_a_model_with_a_second_look_is_saved_and_loaded_and_frozen_by_its_head(tmp_path: Path) -> None:
    config = ccf.create_model("cardiac_unet_small", heads=["heart", "hps"]).config
    heads = tuple(replace(head, refine=8) if head.name == "hps" else head for head in config.heads)
    made = ccf.create_model(config.replace(heads=heads), seed=3)
    made.save_pretrained(tmp_path / "model")
    read = ccf.from_pretrained(tmp_path / "model")
    patch, kinds = torch.randn(5, 1, EDGE, EDGE, EDGE), torch.arange(5)
    assert torch.equal(read.refiners["hps"](patch, kinds), made.eval().refiners["hps"](patch, kinds))
    assert not ccf.from_pretrained(tmp_path / "model", heads=["heart"]).refiners
    read.freeze("hps")
    assert not any(p.requires_grad for n, p in read.named_parameters() if n.startswith(("heads.hps", "refiners.hps")))
    read.save_head("hps", tmp_path / "hps.safetensors")
    other = ccf.from_pretrained(tmp_path / "model", heads=["heart"])
    other.load_head(tmp_path / "hps.safetensors")
    assert torch.equal(other.refiners["hps"](patch, kinds), read.refiners["hps"](patch, kinds))


@pytest.mark.parametrize("refine", [3, -2, True, 8.0])
def test_a_second_look_needs_an_even_number_of_channels(refine: object) -> None:
    with pytest.raises(ConfigError, match="refine="):
        HeadConfig("hps", "landmarks", NAMES, refine=refine)  # type: ignore[arg-type]


def test_a_second_look_needs_the_hinge_points() -> None:
    with pytest.raises(ConfigError, match="RCC"):
        HeadConfig("ms", "landmarks", ("MS1", "MS2"), refine=8)


def test_patches_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 8"):
        PointRefiner(5, 8)(torch.zeros(1, 1, 20, 24, 24), torch.zeros(1, dtype=torch.int64))
