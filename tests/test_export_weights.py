"""From runs of plain training to published weights: what the card says, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from test_golden import replay
from test_robustness import point

import cardiac_ct_fm as ccf
from cardiac_ct_fm.errors import OutputError, UsageError, WeightsError
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.publish import rewrite_card
from cardiac_ct_fm.refiner import PointRefiner
from cardiac_ct_fm.training.digital import held_out_seeds
from cardiac_ct_fm.training.evaluate import weights_sha256
from recipes import export_weights, pretrain
from recipes.benchmarks.planning import weights_id
from recipes.benchmarks.real_scan import measured_with
from recipes.benchmarks.robustness_cases import UNCHANGED, Setting
from recipes.benchmarks.robustness_numbers import summarised
from recipes.card_figures import _rate, held_out_figures, merged, patients, real_scan_figures, robustness_figures, role
from recipes.second_look import with_refiner
from recipes.stored_weights import precision_figures, rounded

MODEL = "cardiac_unet_small"
PICTURE = ROOT / "docs" / "coronaries.png"
SPREAD = {"median": 1.25, "q25": 1.0, "q75": None, "asked": 9, "missed": 1}
REAL = {
    "ascending_aorta_dice": 0.9,
    "circle_centre_mm": None,
    "annulus_mm2": 441.0,
    "annulus_reference_mm2": 490.0,
    "plane_deg": None,
    "landmarks": {"RCC": 0.5, "MS1": None},
    "hinge_read_mm": {"RCC": 1.04, "LCC": 2.0, "NCC": None},
    "circle_read_mm": None,
    "plane_read_deg": None,
    "ostia_read_mm": {"RCA": 11.04, "LCA": None},
}


def held_out(site: int, first: int, last: int) -> list[str]:
    """Names of scans of held-out patients, in no order."""
    kind = f"site{site}" if site else "digital"
    return [f"{kind}-{held_out_seeds(site)[i]}" for i in range(last, first - 1, -1)]


def write_run(folder: Path, weights: dict[str, torch.Tensor], step: int, *options: str) -> Path:
    """A finished run of ``recipes.pretrain``."""
    folder.mkdir()
    save_file(weights, folder / "average.safetensors", metadata={"step": str(step)})
    command = ["python", "-m", "recipes.pretrain", *options, "--out", str(folder)]
    (folder / "runs.json").write_text(json.dumps([{"from_step": 0, "command": command, "commit": "c" * 40}]))
    return folder


def write_real(file: Path, model: ccf.CardiacCTModel, **changes: Any) -> Path:
    """Figures as ``recipes.benchmarks.real_scan`` prints them."""
    file.write_text(json.dumps({**measured_with(model, "standard"), **REAL, **changes}))
    return file


def write_summary(folder: Path, model: ccf.CardiacCTModel, **changes: Any) -> Path:
    """Figures as ``recipes.benchmarks.heldout`` writes them, of two patients of each of three sites."""
    folder.mkdir()
    point = {**SPREAD, "success": {"4_mm": {"rate": 0.75}}, "found": 8, "swap_rate": 0.0}
    point |= {"wrong": 3, "confidence_auroc": 0.9, "confidence_auroc_ci95": [0.6, 1.0]}
    summary = {
        "weights_sha256": weights_sha256(model),
        "config": model.config.to_dict(),
        "heads": list(model.heads),
        "quality": "standard",
        "data": {"strength": None, "spacing_mm": 1.0, "shape": [192, 192, 192]},
        "scans": 6,
        "landmarks": dict.fromkeys(("hinge points", "ostia", "septum"), point),
        "plane": {"plane_angle_deg": SPREAD},
        "segmentation": {"LV": dict.fromkeys(("dice", "nsd", "hd95_mm"), SPREAD)},
        "volumes": {"Calc": {"n": 5, "bias": 10.0, "lower": -20.0, "upper": 40.0, "none_and_none_found": 1}},
        **changes,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    cases = [case for site in (1, 2, 3) for case in held_out(site, 0, 1)]
    (folder / "scores.csv").write_text("\n".join(["case,value", *(f"{case},1" for case in cases)]))
    return folder / "summary.json"


@pytest.fixture(scope="module")
def model() -> ccf.CardiacCTModel:
    return ccf.create_model(MODEL, seed=1).eval()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: ccf.CardiacCTModel) -> list[Path]:
    """Two trainings, the second from the weights of the first."""
    root = tmp_path_factory.mktemp("runs")
    first = write_run(root / "first", dict(model.state_dict()), 30, "--model", MODEL)
    start = ("--start-from", str(first / "average.safetensors"))
    return [first, write_run(root / "second", dict(model.state_dict()), 12, "--model", MODEL, *start)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, model: ccf.CardiacCTModel, runs: list[Path]) -> Path:
    """What the command writes."""
    root = tmp_path_factory.mktemp("published")
    real = write_real(root / "real.json", model)
    figures = ["--heldout", str(write_summary(root / "heldout", model)), "--real", str(real)]
    told = ["--limitation", "It was never trained.", "--picture", str(PICTURE), "Coronaries"]
    export_weights.main(["--model", MODEL, "--run", *map(str, runs), *figures, *told, "--out", str(root)])
    return root / f"{MODEL}.synthetic"


def test_the_card_names_model_trainings_figures_and_their_commands(published: Path) -> None:
    card = (published / "README.md").read_text(encoding="utf-8")
    first_line = card.split(f"# {MODEL}.synthetic\n\n")[1].splitlines()[0]
    assert first_line.startswith("100 % synthetic")
    assert "Training steps: 42" in card
    assert card.count("python -m recipes.pretrain") == 2
    assert "6 held-out digital patients of sites 1 to 3" in card
    assert f"`python -m recipes.benchmarks.heldout --model {MODEL} --cohort 1-3/0-1`" in card
    assert "| these patients | validation" in card
    assert f"`python -m recipes.benchmarks.real_scan --model {MODEL}`" in card
    assert "RCA 11.0 mm, LCA not found" in card
    assert "RCC 1.0 mm, LCC 2.0 mm, NCC not found" in card
    ranks = "AUROC of the confidence of those found 0.90 [0.60–1.00] (3 wrong)"
    assert f"| hinge points | 1.25 mm [1.00–∞], 75% within 4 mm, 8 of 9 found, {ranks} |" in card
    calcium = "bias 10 mm³, limits of agreement -20…40 mm³, in 5 scans that have any or show any; in 1 that have none"
    assert f"| calcium volume | {calcium}" in card
    assert "- It was never trained." in card
    assert "not recorded" not in card


def test_the_card_shows_its_pictures(published: Path) -> None:
    card = (published / "README.md").read_text(encoding="utf-8")
    assert "![Coronaries](pictures/coronaries.png)" in card
    assert (published / "pictures" / "coronaries.png").read_bytes() == PICTURE.read_bytes()


def test_what_rounding_changes_in_the_logits_is_measured(published: Path) -> None:
    group = json.loads((published / "registry.json").read_text())["metrics"]["Stored as float16, against float32"]
    assert {"noise", "a digital patient at 1 mm", "a digital patient at 2 mm"} <= set(group)
    assert all("largest change of a logit 0.0" in group[name] for name in group if "digital" in name)


def test_the_golden_logits_of_an_export_come_back(published: Path) -> None:
    replay(published / "test" / "golden.safetensors")


def test_a_precision_that_changes_the_answers_is_refused() -> None:
    loud = ccf.create_model(MODEL, seed=1).eval()
    with torch.no_grad():
        loud.heads["heart"].weight.mul_(1000)
    with pytest.raises(WeightsError, match=r"bfloat16 changes a logit by .* store these weights with --dtype float32"):
        precision_figures(loud, torch.bfloat16)


def test_a_card_is_written_anew_and_the_weights_stay(
    published: Path, model: ccf.CardiacCTModel, tmp_path: Path
) -> None:
    before = {p.name: p.read_bytes() for p in [*published.glob("*.safetensors"), *published.glob("test/*")]}
    stored = rounded(model, torch.float16)
    real = write_real(tmp_path / "real.json", stored, ascending_aorta_dice=0.77)
    common = ["--model", MODEL, "--out", str(published.parent), "--card-only"]
    export_weights.main([*common, "--real", str(real), "--limitation", "New."])
    card = (published / "README.md").read_text(encoding="utf-8")
    for said in ("| Dice of the ascending aorta | 0.77 |", "- New.", "Stored as float16", "Training steps: 42"):
        assert said in card
    assert "6 held-out digital patients" in card and card.count("The real demonstration scan") == 1
    assert "![Coronaries](pictures/coronaries.png)" in card
    assert {p.name: p.read_bytes() for p in [*published.glob("*.safetensors"), *published.glob("test/*")]} == before
    assert ccf.from_pretrained(published).weight_files.verified  # type: ignore[union-attr]
    export_weights.main([*common, "--picture", str(ROOT / "docs" / "pictures" / "preview.png"), "Preview"])
    assert [path.name for path in (published / "pictures").iterdir()] == ["preview.png"]
    assert "| Dice of the ascending aorta | 0.77 |" in (published / "README.md").read_text(encoding="utf-8")


def test_a_card_of_other_runs_is_refused(published: Path, runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", dict(ccf.create_model(MODEL, seed=2).state_dict()), 1, "--model", MODEL)
    with pytest.raises(UsageError, match="holds other weights than"):
        export_weights.main(["--model", MODEL, "--run", str(other), "--out", str(published.parent), "--card-only"])


def test_figures_of_other_weights_or_looks_are_refused(model: ccf.CardiacCTModel, tmp_path: Path) -> None:
    other = write_summary(tmp_path / "other", ccf.create_model(MODEL, seed=2))
    with pytest.raises(UsageError, match="measured with other weights"):
        export_weights.check_measured(other, model, torch.float16)
    looks = write_summary(tmp_path / "looks", model, config={"looks": []})
    with pytest.raises(UsageError, match="measured with other looks"):
        export_weights.check_measured(looks, model, torch.float16)
    stored = write_summary(tmp_path / "stored", rounded(model, torch.float16))
    export_weights.check_measured(stored, model, torch.float16)


def test_new_figures_replace_those_of_the_same_benchmark_alone(model: ccf.CardiacCTModel, tmp_path: Path) -> None:
    real = real_scan_figures(write_real(tmp_path / "real.json", model), MODEL)
    old = held_out_figures(write_summary(tmp_path / "old", model), MODEL)
    new = held_out_figures(write_summary(tmp_path / "new", model, scans=9), MODEL)
    plain = {"note": "measured by hand"}
    assert list(old) != list(new)
    assert merged({**plain, **old, **real}, new) == {**plain, **real, **new}
    assert merged({**plain, **old, **real}, {}) == {**plain, **old, **real}


def test_figures_of_the_real_scan_belong_to_the_weights_and_looks(model: ccf.CardiacCTModel, tmp_path: Path) -> None:
    def taken(file: Path) -> Any:
        return export_weights.measured(export_weights.options(["--card-only", "--real", str(file)]), model)

    assert taken(write_real(tmp_path / "own.json", model))
    assert taken(write_real(tmp_path / "stored.json", rounded(model, torch.float16)))
    with pytest.raises(UsageError, match="measured with other weights"):
        taken(write_real(tmp_path / "other.json", ccf.create_model(MODEL, seed=2)))
    with pytest.raises(UsageError, match="measured with other looks"):
        taken(write_real(tmp_path / "looks.json", model, config={"looks": []}))
    (tmp_path / "nobody.json").write_text(json.dumps(REAL))
    with pytest.raises(UsageError, match="does not say with which weights"):
        taken(tmp_path / "nobody.json")


def test_the_commands_name_every_option_that_is_not_the_default(model: ccf.CardiacCTModel, tmp_path: Path) -> None:
    data = {"strength": 0.7, "spacing_mm": 0.5, "shape": [96, 96, 64]}
    summary = write_summary(tmp_path / "x", model, data=data, heads=["hps"], quality="fast")
    (group,) = held_out_figures(summary, MODEL).values()
    assert group["command"].endswith("0-1 --strength 0.7 --spacing 0.5 --shape 96 96 64 --heads hps --quality fast`")
    (group,) = real_scan_figures(write_real(tmp_path / "real.json", model, quality="fast"), MODEL).values()
    assert group["command"] == f"`python -m recipes.benchmarks.real_scan --model {MODEL} --quality fast`"
    file = write_robustness(tmp_path / "robustness.json", model, strength=0.5, spacing_mm=2.0, quality="fast")
    (group,) = robustness_figures(file, MODEL).values()
    assert group["command"].endswith("--n 1 --out FOLDER --conditions noise --strength 0.5 --spacing 2 --quality fast`")


def test_trainings_out_of_order_or_of_another_model_are_refused(runs: list[Path], model: ccf.CardiacCTModel) -> None:
    with pytest.raises(UsageError, match=r"started from random weights, not from .*first; check the order"):
        export_weights.provenance_of([runs[0], runs[0]], model)
    with pytest.raises(UsageError, match=f"trained {MODEL}, not cardiac_swin_tiny"):
        export_weights.provenance_of(runs, ccf.create_model("cardiac_swin_tiny"))


def test_a_training_that_started_from_published_weights_tells_their_trainings_too(
    tmp_path: Path, runs: list[Path], model: ccf.CardiacCTModel, published: Path
) -> None:
    start = ["--model", MODEL, "--start-from", str(published)]
    later = write_run(tmp_path / "later", dict(model.state_dict()), 9, *start)
    with pytest.raises(UsageError, match="name the runs before it"):
        export_weights.provenance_of([later], model)
    pretrain.note_start(later, ccf.from_pretrained(published))
    facts = export_weights.provenance_of([later], model)
    assert facts["steps"] == 30 + 12 + 9
    before = export_weights.provenance_of(runs, model)["runs"]
    assert facts["runs"][:-1] == before and str(published) in facts["runs"][-1]["command"]


@pytest.mark.parametrize("form", [["--start-from", "{}"], ["--start-from={}"]])
def test_a_first_training_that_continues_another_one_is_refused(
    form: list[str], tmp_path: Path, runs: list[Path], model: ccf.CardiacCTModel
) -> None:
    start = [part.format(runs[0] / "average.safetensors") for part in form]
    later = write_run(tmp_path / "later", {"w": torch.zeros(1)}, 12, "--model", MODEL, *start)
    with pytest.raises(UsageError, match=r"later started from .*average.safetensors; name the runs before it"):
        export_weights.provenance_of([later], model)
    assert export_weights.provenance_of([runs[0], later], model)["steps"] == 42


def test_a_grown_model_says_which_steps_trained_which_network(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"w": torch.zeros(1)}, 30)
    start = ["--model", "cardiac_swin_small", "--start-from", str(first / "average.safetensors")]
    second = write_run(tmp_path / "b", {"w": torch.zeros(1)}, 12, *start)
    facts = export_weights.provenance_of([first, second], ccf.create_model("cardiac_swin_small"))
    assert facts["steps"] == 42
    assert facts["grown"].startswith("steps: 30 of cardiac_swin_tiny and 12 of cardiac_swin_small, whose trunk of 4")
    assert [piece["model"] for piece in facts["runs"]] == ["cardiac_swin_tiny", "cardiac_swin_small"]


def test_a_run_is_needed_to_write_weights() -> None:
    with pytest.raises(SystemExit):
        export_weights.main(["--model", MODEL])
    with pytest.raises(SystemExit):
        export_weights.main(["--model", MODEL, "--card-only", "--refiner", "runs/refine"])


def write_refiner(folder: Path) -> Path:
    """A finished run of ``recipes.refine``."""
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = PointRefiner(5, 8).state_dict()
    save_file(weights, folder / "average.safetensors", metadata={"step": "77"})
    command = ["python", "-m", "recipes.refine", "--out", str(folder)]
    (folder / "runs.json").write_text(json.dumps([{"from_step": 0, "command": command, "commit": "c" * 40}]))
    return folder


def test_a_second_look_joins_weights_that_are_published_already(
    published: Path, runs: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / published.name
    shutil.copytree(published, folder)
    before = ccf.from_pretrained(folder)
    run = write_refiner(tmp_path / "refine")
    base = ["--model", MODEL, "--base", str(published)]
    export_weights.main([*base, "--refiner", str(run), "--out", str(tmp_path)])
    after = ccf.from_pretrained(folder)
    own = load_file(run / "average.safetensors")
    assert all(torch.equal(after.refiners["hps"].state_dict()[k], v.half().float()) for k, v in own.items())
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(new[k], v) for k, v in old.items())
    assert after.config.provenance["runs"] == before.config.provenance["runs"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"`python -m recipes.refine --out {run}`" in card and "needs no trunk: 77" in card
    assert "second look at hps, noise | largest change of a logit" in card
    assert "| trunk and heads | read from files of this precision" in card
    replay(folder / "test" / "golden.safetensors")
    with pytest.raises(UsageError, match="measured with other weights"):
        real = write_real(tmp_path / "real.json", before)
        export_weights.main([*base, "--refiner", str(run), "--real", str(real), "--out", str(tmp_path)])
    with pytest.raises(UsageError, match="looks at hps again; give its --refiner"):
        export_weights.main(["--model", MODEL, "--run", *map(str, runs), "--out", str(tmp_path)])


def test_weights_of_a_federation_keep_its_description(tmp_path: Path, model: ccf.CardiacCTModel) -> None:
    base = ccf.export_pretrained(model, tmp_path / "models", tag="fedkd", description="Three sites.", metrics={})
    command = ["--model", MODEL, "--base", str(base), "--tag", "fedkd", "--refiner", "cardiac_swin_tiny"]
    export_weights.main([*command, "--out", str(tmp_path / "out")])
    found = ModelInfo.from_manifest(tmp_path / "out" / base.name / MANIFEST)
    assert found.description == "Three sites." and not found.default
    with pytest.raises(SystemExit):
        export_weights.main(command)
    with pytest.raises(UsageError, match=f"is a {MODEL}; give --model {MODEL}"):
        export_weights.main(["--base", str(base), *command[4:], "--out", str(tmp_path / "out")])
    assert ccf.from_pretrained(tmp_path / "out" / base.name).refiners.keys() == {"hps"}


def test_a_share_is_not_rounded_up_to_all() -> None:
    assert [_rate(share) for share in (1.0, 0.9968, 0.994, 0.97)] == ["100%", "99.7%", "99%", "97%"]


def test_a_second_look_at_other_points_is_refused(tmp_path: Path) -> None:
    run = write_refiner(tmp_path / "refine")
    with pytest.raises(UsageError, match="none of them"):
        with_refiner(ccf.create_model(MODEL, heads=["heart"]), str(run))


def test_other_weights_lend_their_second_look(published: Path) -> None:
    bare = ccf.from_pretrained(published)
    lender = ccf.from_pretrained("cardiac_swin_tiny")
    whole, facts = with_refiner(bare, "cardiac_swin_tiny")
    lent, own = lender.refiners["hps"].state_dict(), whole.refiners["hps"].state_dict()
    assert own.keys() == lent.keys() and all(torch.equal(own[k], v) for k, v in lent.items())
    assert all(torch.equal(whole.state_dict()[k], v) for k, v in bare.state_dict().items())
    assert facts == {k: lender.config.provenance[k] for k in ("refiner_steps", "refiner_runs")}
    with pytest.raises(UsageError, match="has no second look at hps"):
        with_refiner(bare, str(published))


@pytest.mark.parametrize("name", ["nowhere.png", "README.md"])
def test_a_picture_must_be_one(name: str, tmp_path: Path, model: ccf.CardiacCTModel) -> None:
    with pytest.raises(UsageError, match="is no picture for a card"):
        ccf.export_pretrained(model, tmp_path, tag="x", pictures={ROOT / name: "caption"})
    assert not list(tmp_path.iterdir())


def test_a_folder_among_the_pictures_is_told(published: Path) -> None:
    (published / "pictures" / "mine").mkdir()
    with pytest.raises(OutputError, match=r"pictures/mine is no picture of the card .*; remove it"):
        rewrite_card(published, pictures={PICTURE: "Coronaries"})
    (published / "pictures" / "mine").rmdir()


@pytest.mark.parametrize(
    ("cases", "option", "whose"),
    [
        (held_out(0, 0, 11), "--n 12", "of no site"),
        (held_out(0, 2, 3), "--cohort 0/2-3", "of no site"),
        (held_out(3, 7, 7), "--cohort 3/7", "of site 3"),
        ([*held_out(1, 0, 0), *held_out(2, 0, 0), *held_out(4, 0, 0)], "--cohort 1-2/0,4/0", "of sites 1 to 2, 4"),
        ([*held_out(2, 0, 1), *held_out(1, 0, 0)], "--cohort 1/0,2/0-1", "of sites 1 to 2"),
        ([*held_out(1, 0, 4), *held_out(0, 0, 4)], "--cohort 0-1/0-4", "of no site and of site 1"),
    ],
)
def test_patients_are_named_as_heldout_takes_them(cases: list[str], option: str, whose: str) -> None:
    assert patients(cases) == (option, whose)


@pytest.mark.parametrize(
    ("cases", "kind"),
    [
        (["digital-200", "site3-350025", "site8-850100"], "test"),
        (["digital-199", "site3-350025"], "validation"),
        (["digital-200", "site3-350024"], "validation"),
    ],
)
def test_patients_by_whom_anything_was_decided_are_not_called_a_test(cases: list[str], kind: str) -> None:
    assert role(cases).startswith(kind)


def write_robustness(file: Path, model: ccf.CardiacCTModel, **changes: Any) -> Path:
    """Figures of one patient, as he is and at twice the noise."""
    still = [point(name, 1.0, 0.9) for name in ("RCC", "LCC", "NCC")]
    noisy = [point("RCC", 3.0, 0.7), point("LCC", 5.0, 0.5), point("NCC", None, 0.0, "missed")]
    figures = summarised({UNCHANGED: still, Setting("noise", 2): noisy})
    about = {"weights": weights_id(model), "patients": 1, "strength": 0.7, "spacing_mm": 1.0, "quality": "standard"}
    looks = model.config.to_dict()["looks"]
    file.write_text(json.dumps({"about": {**about, "looks": looks, **changes}, **figures}))
    return file


def test_robustness_is_told_by_condition(tmp_path: Path, model: ccf.CardiacCTModel) -> None:
    ((title, group),) = robustness_figures(write_robustness(tmp_path / "robustness.json", model), MODEL).items()
    assert "under one changed condition" in title
    assert group["Unchanged"] == "hinge points 1.0 mm, 100%, confidence 0.90"
    noise = [text for name, text in group.items() if name.startswith("Noise, 2")]
    assert noise == ["hinge points 5.0 mm, 33%, confidence 0.40"]
    assert group["hinge points: all, and the surest 80%"] == "67% and 80% within 4 mm"
    assert f"--model {MODEL} --n 1" in group["command"]


def test_robustness_of_other_weights_or_looks_is_refused(tmp_path: Path, model: ccf.CardiacCTModel) -> None:
    file = tmp_path / "robustness.json"
    args = export_weights.options(["--model", MODEL, "--run", "x", "--robustness", str(file)])
    write_robustness(file, ccf.create_model(MODEL, seed=2))
    with pytest.raises(UsageError, match="measured with other weights"):
        export_weights.measured(args, model)
    write_robustness(file, model, looks=[])
    with pytest.raises(UsageError, match="measured with other looks"):
        export_weights.measured(args, model)
    write_robustness(file, model)
    assert export_weights.measured(args, model)


def test_a_figure_that_could_not_be_made_is_told(tmp_path: Path, model: ccf.CardiacCTModel) -> None:
    (group,) = real_scan_figures(write_real(tmp_path / "real.json", model), MODEL).values()
    assert group["hinge-point circle to the annulus disc"] == "no circle"
    assert group["confidence of the points"]["MS1"] == "not found"
    assert group["area of the annulus"] == "441 mm², -10 % of the reference's 490 mm²"
    lost = {"plane_angle_deg": {**SPREAD, "median": None}}
    (group,) = held_out_figures(write_summary(tmp_path / "x", model, plane=lost), MODEL).values()
    assert group["annulus plane"] == "∞° [1.0–∞], 8 of 9 found"
