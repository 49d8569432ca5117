"""The digital cohort: published sizes, landmarks on the anatomy, the same patient for the same seed."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cardiac_ct_fm.anatomy import HEART_LABELS, LANDMARKS, OSTIA
from cardiac_ct_fm.cohort.case import draw_case
from cardiac_ct_fm.cohort.export import render_scan, write_cases
from cardiac_ct_fm.cohort.heart import build_heart
from cardiac_ct_fm.cohort.implants import NO_IMPLANTS
from cardiac_ct_fm.cohort.patient import draw_patient
from cardiac_ct_fm.cohort.render import heart_labels, render
from cardiac_ct_fm.cohort.sites import SITES, draw_site_case, observed_landmarks, site, site_scans
from cardiac_ct_fm.errors import ConfigError, OutputError
from cardiac_ct_fm.landmark_io import read_landmarks
from cardiac_ct_fm.training.data_list import read_data_list
from cardiac_ct_fm.volume_io import load_volume
from recipes.cohort_statistics import collect, compare, grid

SEEDS = range(40, 46)


def cube(centre, spacing, count):
    return grid(np.asarray(centre, float), spacing, count)


def lumen_edge_distance(heart, point, spacing=0.5, reach=6.0):
    """Distance (mm) of a body point to the boundary of the rendered lumen (LV and Aorta)."""
    points = cube(point.numpy(), spacing, int(2 * reach / spacing))
    labels = heart_labels(heart, points, spacing)
    lumen = torch.isin(labels, torch.tensor([HEART_LABELS["LV"], HEART_LABELS["Aorta"]], dtype=torch.uint8))
    edges = []
    for axis in range(3):
        first, second = lumen.narrow(axis, 0, lumen.shape[axis] - 1), lumen.narrow(axis, 1, lumen.shape[axis] - 1)
        where = (first != second).nonzero()
        shift = torch.zeros(3)
        shift[axis] = spacing / 2
        edges.append(points[tuple(where.T)] + shift)
    return float((torch.cat(edges) - point).norm(dim=-1).min())


@pytest.fixture(scope="module")
def hearts():
    return [build_heart(draw_patient(seed)) for seed in SEEDS]


def test_one_seed_makes_one_patient():
    first, again, other = draw_case(7), draw_case(7), draw_case(8)
    centre = torch.zeros(3)
    image, look = first.look(centre, 4.0, (32, 32, 32), noise_seed=3)
    image_again, look_again = again.look(centre, 4.0, (32, 32, 32), noise_seed=3)
    assert torch.equal(image, image_again) and torch.equal(look.heart, look_again.heart)
    assert not torch.equal(image, other.look(centre, 4.0, (32, 32, 32), noise_seed=3)[0])


def test_a_patient_looks_the_same_through_windows_that_overlap():
    case = draw_case(12)
    wide = case.look(torch.zeros(3), 2.0, (48, 48, 48))[1].heart
    narrow = case.look(torch.zeros(3), 2.0, (32, 32, 32))[1].heart
    assert (wide[8:40, 8:40, 8:40] == narrow).float().mean() > 0.999


def test_the_warp_is_inverted_to_a_twentieth_of_a_millimetre_and_never_folds(hearts):
    rng = torch.Generator().manual_seed(0)
    for heart in hearts:
        body = (torch.rand(400, 3, generator=rng) - 0.5) * 180
        back = heart.warp.to_body(heart.warp.to_template(body))
        assert (back - body).norm(dim=-1).max() < 0.05
        assert torch.linalg.det(heart.warp.jacobian(body)).min() > 0


def test_hinge_points_and_septum_lie_on_the_rendered_wall(hearts):
    for heart in hearts:
        for name in ("RCC", "LCC", "NCC", "MS1", "MS2"):
            assert lumen_edge_distance(heart, heart.landmarks[name]) <= 0.7, (heart.patient.seed, name)


def test_ostia_are_where_a_coronary_artery_leaves_the_lumen(hearts):
    for heart in hearts:
        for name in OSTIA:
            point = heart.landmarks[name]
            assert lumen_edge_distance(heart, point) <= 0.7, (heart.patient.seed, name)
            points = cube(point.numpy(), 0.5, 20)
            vessel = render(heart, points, 0.5).coronaries > 0
            gap = (points[vessel] - point).norm(dim=-1).min() if vessel.any() else math.inf
            assert gap < 2.0, (heart.patient.seed, name)


def test_calcium_sits_in_the_valve():
    heart = build_heart(next(p for p in map(draw_patient, range(50)) if p.root.calcium[:, 3:6].prod(1).sum() > 100))
    middle = torch.stack([heart.landmarks[k] for k in ("RCC", "LCC", "NCC")]).mean(0)
    points = cube(middle.numpy(), 1.0, 64)
    look = render(heart, points, 1.0)
    where = points[look.calc > 0]
    assert len(where) > 30
    assert (where - middle).norm(dim=-1).max() < 35
    assert look.hu[look.calc > 0].median() > 500


def test_chambers_have_the_volumes_that_were_drawn(hearts):
    for heart in hearts:
        labels = heart_labels(heart, cube((0, 0, 0), 2.5, 88), 2.5)
        for name in ("LV", "RV", "LA", "Myo"):
            measured = float((labels == HEART_LABELS[name]).sum()) * 2.5**3 / 1000
            assert measured == pytest.approx(heart.patient.targets_ml[name], rel=0.15), (heart.patient.seed, name)


def test_a_sample_of_patients_has_the_published_sizes():
    for row in compare(collect(900, 24)):
        chance = 3 / math.sqrt(row["n"])
        assert row["missing"] == 0
        assert abs(row["shift_in_sd"]) <= 0.3 + chance * row["sd_ratio"], row
        assert 0.75 - chance / math.sqrt(2) <= row["sd_ratio"] <= 1.25 + chance / math.sqrt(2), row


def test_points_outside_of_the_field_of_view_are_not_labelled():
    case = draw_case(3)
    case = dataclasses.replace(case, scanner=dataclasses.replace(case.scanner, z_range=(-400.0, 6.0)))
    top = torch.tensor([0.0, 0.0, case.scanner.z_range[1] + 40.0])
    image, look = case.look(top, 2.0, (16, 16, 16))
    assert (image == case.scanner.pad_hu).all() and not look.heart.any()
    hidden = [n for n in LANDMARKS if not bool(case.shows(case.heart.landmarks[n]))]
    _, root = case.look(case.heart.landmarks["RCC"], 2.0, (32, 32, 32))
    drawn = case.landmark_labels("hps", case.heart.landmarks["RCC"], 2.0, root)
    names = ("RCC", "LCC", "NCC", "RCA", "LCA")
    assert not any((drawn == names.index(n) + 1).any() for n in hidden if n in names)


def test_sites_hold_the_labels_of_the_paper():
    scans = {s.number: site_scans(s.number, 1.0) for s in SITES}
    assert {n: len(v) for n, v in scans.items()} == {1: 813, 2: 1819, 3: 3001, 4: 1829, 5: 534, 6: 42, 7: 60, 8: 26}
    assert sum("ms" in s.labels for s in scans[1]) == 73 and not any(s.labels for s in scans[5])
    assert len({s.seed for v in scans.values() for s in v}) == sum(map(len, scans.values()))


def test_two_observers_differ_as_human_observers_do():
    distances = []
    for seed in range(12):
        case = draw_case(seed)
        here, there = observed_landmarks(1, case), observed_landmarks(2, case)
        distances += [float((here[n] - there[n]).norm()) for n in LANDMARKS]
    assert np.median(distances) == pytest.approx(2.0, abs=0.25)  # Astudillo et al. 2020: 2.0 [1.3–2.8] mm


def test_a_site_writes_scans_that_load_again(tmp_path):
    listing = write_cases(6, 1, tmp_path, spacing_mm=3.0, size=64)
    folder = tmp_path / "site6-600000"
    volume = load_volume(folder / "image.nii.gz")
    truth = read_landmarks(folder / "truth" / "landmarks.json")
    assert set(truth) == set(LANDMARKS)
    clicked = read_landmarks(folder / "landmarks.json")
    case = draw_site_case(6, 600000)
    for name, point in clicked.items():
        if point.found:
            assert np.linalg.norm(np.array(point.ras_mm) - case.heart.landmarks[name].numpy()) < 6
    assert volume.grid.spacing == pytest.approx((3, 3, 3))
    (entry,) = read_data_list(listing).training
    assert all(entry.label_of(head) for head in ("heart", "calc", "coronaries"))
    assert entry.label_of("hps", points=True)
    said = listing.read_text()
    assert "shapes of two real hearts" in said and "no real person" not in said


def test_a_second_hospital_joins_the_data_list_of_the_first_and_a_patient_is_listed_once(tmp_path):
    for number, first, test in ((6, 0, 0), (2, 0, 0), (6, 1, 1), (2, 0, 1)):
        listing = write_cases(number, 1, tmp_path, spacing_mm=4.0, size=32, first=first, test=test)
    said = json.loads(listing.read_text())
    images = [[row["image"].split("/")[0] for row in said[key]] for key in ("training", "test")]
    assert images == [["site6-600000"], ["site6-600001", "site2-200000"]]
    assert (said["numTraining"], said["numTest"]) == (1, 2)
    assert said["name"].startswith("digital site 2 (") and "digital site 6 (" in said["name"]
    assert len(read_data_list(listing).test) == 2


@pytest.mark.parametrize("other", ['{"training": [], "test": []}', '{"description": "mine"}', "[]", "no json"])
def test_a_data_list_of_other_scans_is_never_replaced(tmp_path, other):
    (tmp_path / "datalist.json").write_text(other)
    with pytest.raises(OutputError, match=r"datalist\.json is no list of digital patients; write into another folder"):
        write_cases(6, 1, tmp_path, spacing_mm=4.0, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["datalist.json"]
    assert (tmp_path / "datalist.json").read_text() == other


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_patient(-1), "seed is -1"),
        (lambda: draw_patient(1, strength=3), "strength is 3"),
        (lambda: draw_patient(1, sex="X"), "sex is 'X'"),
        (lambda: site(9), "no site 9"),
        (lambda: site_scans(1, 0), "factor is 0"),
        (lambda: render_scan(draw_case(1), spacing_mm=-1), "spacing is -1"),
        (lambda: render_scan(draw_case(1), size=5), "size is 5"),
        (lambda: write_cases(1, 0, "nowhere"), "count is 0"),
        (lambda: write_cases(1, 2, "nowhere", test=3), "test is 3.* 0…2"),
    ],
)
def test_bad_parameters_name_the_parameter_and_its_range(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_and_cpu_make_the_same_patient():
    labels = [draw_case(5, device=d).look(torch.zeros(3), 2.0, (64, 64, 64))[1].heart.cpu() for d in ("cpu", "cuda")]
    assert (labels[0] == labels[1]).float().mean() >= 0.999


PATIENT = """
import sys, numpy, torch
from cardiac_ct_fm.cohort.case import draw_case
image, labels = draw_case(5).look(torch.zeros(3), 2.0, (64, 64, 64))
numpy.savez(sys.argv[1], image=image.numpy(), heart=labels.heart.numpy())
"""


def test_a_processor_with_other_arithmetic_makes_the_same_patient(tmp_path):
    made = []
    for kernels in ("default", "native"):  # torch's plain C++ kernels, and those for this processor
        environment = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"}
        if kernels == "default":
            environment["ATEN_CPU_CAPABILITY"] = "default"
        path = tmp_path / f"{kernels}.npz"
        subprocess.run([sys.executable, "-c", PATIENT, str(path)], env=environment, check=True)
        made.append(np.load(path))
    assert (made[0]["heart"] == made[1]["heart"]).mean() >= 0.999
    assert made[0]["heart"].any()
    assert np.abs(made[0]["image"] - made[1]["image"]).max() < 0.1


def test_some_patients_have_leads_stents_and_plaques_and_they_are_seen_but_not_labelled():
    hearts = [build_heart(draw_patient(seed)) for seed in range(40)]
    kinds = {k: [h for h in hearts if getattr(h.implants, k)] for k in ("leads", "stents", "plaques")}
    assert all(0 < len(found) < 40 for found in kinds.values())
    for kind, least_hu in (("leads", 2000), ("stents", 600)):
        heart = kinds[kind][0]
        tube = getattr(heart.implants, kind)[0]
        middle = heart.warp.to_body(tube.line[len(tube.line) // 2][None])[0]
        points = cube(middle.numpy(), 0.8, 24)
        seen, plain = render(heart, points, 0.8), render(dataclasses.replace(heart, implants=NO_IMPLANTS), points, 0.8)
        assert float(seen.hu.max()) > least_hu and float((seen.hu - plain.hu).max()) > 300
        for label in ("heart", "calc", "coronaries"):
            assert torch.equal(getattr(seen, label), getattr(plain, label))


def test_a_lead_passes_from_the_atrium_to_the_ventricle():
    heart = next(h for h in (build_heart(draw_patient(seed)) for seed in range(60)) if h.implants.leads)
    line = heart.implants.leads[0].line
    depth = heart.fields(line).blood
    inside = depth[[HEART_LABELS["RA"] - 1, HEART_LABELS["RV"] - 1]].max(1).values
    assert float(inside.min()) > 3.0
