"""Stages in one process on folders of scans: what a site does, what the server makes of it, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from federation_sites import SUBJECTS, quick, write_site

import cardiac_ct_fm as ccf
from cardiac_ct_fm.anatomy import HEART_LABELS
from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.refiner import PointRefiner
from recipes.federated_distillation.checkpoint import check
from recipes.federated_distillation.coordinator import FederationError
from recipes.federated_distillation.export import export
from recipes.federated_distillation.in_process import run_in_process
from recipes.federated_distillation.local_training import LocalRound
from recipes.federated_distillation.messages import Order, Reply
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.site_worker import SiteWorker
from recipes.federated_distillation.sites import folder_site, labels_of_sites
from recipes.federated_distillation.state import SECOND_LOOK, State
from recipes.federated_distillation.trainee import arrays_of, initial_parameters, load_into, trainee_of
from recipes.second_look import joined


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sites: one with heart and hinge points, one with calcium and septum only."""
    folder = tmp_path_factory.mktemp("scans")
    return {
        "site-a": write_site(folder / "a", SUBJECTS["site-a"], ("heart", "hps")),
        "site-b": write_site(folder / "b", SUBJECTS["site-b"], ("heart", "ms", "calc"), seed=1),
    }


@pytest.fixture
def make(lists: dict[str, Path], tmp_path: Path) -> Callable[[Settings], dict[str, SiteWorker]]:
    def build(settings: Settings) -> dict[str, SiteWorker]:
        plan = make_plan(settings, labels_of_sites(settings))
        sites = {name: folder_site(name, lists[name], settings, tmp_path / name) for name in settings.locations}
        return {n: SiteWorker(s, settings.for_sites(), plan, tmp_path / "sites" / n) for n, s in sites.items()}

    return build


PARTIAL = {"holdings": ("site-a=heart,hps", "site-b=heart,ms,calc")}


def test_fedavg_over_one_site_is_local_training(make: Callable, tmp_path: Path) -> None:
    settings = quick(locations=("site-a",), rounds=1, epochs=3)
    workers = make(settings)
    federated = run_in_process(settings, tmp_path, workers).load("fedavg")
    step = make_plan(settings, labels_of_sites(settings))[0]
    trainee = trainee_of(step, 0)
    load_into(trainee, initial_parameters(step, settings.seed))
    torch.set_num_threads(settings.threads)
    for number in range(settings.rounds):
        LocalRound(settings, "site-a", step, number, workers["site-a"].site.training).fit(trainee)
    local = arrays_of(trainee)
    assert max(np.abs(local[k] - federated[k]).max() for k in local) <= 1e-6
    assert any(np.abs(local[k] - v).max() > 1e-3 for k, v in initial_parameters(step, settings.seed).items())


def test_a_stopped_run_goes_on_to_the_same_weights(make: Callable, tmp_path: Path) -> None:
    settings = quick(**PARTIAL, locations=("site-a",), rounds=2)
    whole = run_in_process(settings, tmp_path / "whole", make(settings)).load("fedavg")
    assert run_in_process(settings, tmp_path / "cut", make(settings), rounds=1).rounds("fedavg") == 1
    parts = run_in_process(settings, tmp_path / "cut", make(settings)).load("fedavg")
    assert all(np.array_equal(whole[k], parts[k]) for k in whole)


def test_a_breakpoint_of_other_settings_is_not_continued(make: Callable, tmp_path: Path) -> None:
    settings = quick(locations=("site-a",), rounds=1)
    run_in_process(settings, tmp_path, make(settings))
    with pytest.raises(ConfigError, match=r"other settings \(lr\)"):
        State(tmp_path / "server" / settings.exp_name, settings.replace(lr=0.5))
    State(tmp_path / "server" / settings.exp_name, settings.replace(quorum=1))


@pytest.fixture(scope="module")
def distilled(
    lists: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, State, list[str], Path]:
    """The whole distillation over two sites that hold different labels."""
    home = tmp_path_factory.mktemp("kd")
    settings = quick(task="kd", method="kd", output_seg=True, **PARTIAL, rounds=1, model_type="swin_unetr",
                     pseudo_labels="keep", uncertainty_samples=2, soft_targets=0.5, exp_name="kd")  # fmt: skip
    plan = make_plan(settings, labels_of_sites(settings))
    sites = {name: folder_site(name, lists[name], settings, home / "sites" / name) for name in settings.locations}
    workers = {n: SiteWorker(s, settings, plan, home / "sites" / n) for n, s in sites.items()}
    said: list[str] = []
    return settings, run_in_process(settings, home, workers, said.append), said, home


def test_distillation_runs_through_all_stages_and_trains_every_head(distilled: tuple) -> None:
    settings, state, said, _ = distilled
    assert [s for s in said if "finished" in s] == [
        "teach-hps  round 1/1 finished with site-a",
        "teach-ms  round 1/1 finished with site-b",
        "teach-calc  round 1/1 finished with site-b",
        "distil  round 1/1 finished with site-a, site-b",
    ]
    step = next(s for s in make_plan(settings, labels_of_sites(settings)) if s.name == "distil")
    start, end = initial_parameters(step, settings.seed), state.load("distil")
    assert all(np.abs(end[f"heads.{h}.weight"] - start[f"heads.{h}.weight"]).max() > 0 for h in step.heads)


def test_pseudo_labels_are_of_missing_heads_only_and_stay_at_the_site(distilled: tuple) -> None:
    _, state, _, home = distilled
    for name, own in (("site-a", {"hps"}), ("site-b", {"ms", "calc"})):
        files = sorted((home / "sites" / name).rglob("*.npz"))
        assert files
        for path in files:
            with np.load(path) as file:
                heads = {k.split(".", 1)[1] for k in file.files if "." in k}
            assert heads and not heads & own
    assert not [p for p in state.folder.rglob("*.npz")]


def test_the_distilled_network_is_published_with_its_history(distilled: tuple) -> None:
    import cardiac_ct_fm as ccf

    settings, state, _, home = distilled
    folder = export(settings, state, home / "models")
    model = ccf.from_pretrained(folder)
    weights = state.load("distil")
    assert all(np.array_equal(p.detach().numpy(), weights[n]) for n, p in model.named_parameters())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "site-a" in card and "commit" in card.lower() and "teach-hps" in card
    assert model.config.provenance["rounds"] == 1
    assert len(model.config.provenance["data_sha256"]) == 64
    for subject in (*SUBJECTS["site-a"], *SUBJECTS["site-b"]):
        assert subject not in card and subject.replace("^", "_") not in card


def test_history_and_figures_are_written(distilled: tuple) -> None:
    _, state, _, _ = distilled
    rows = (state.folder / "history.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "time,step,round,site,part,measure,value"
    assert any(",distil,0,site-b,hps,loss," in r for r in rows)
    assert {p.name for p in (state.folder / "tensorboard").iterdir()} >= {"site-a", "site-b"}
    assert set(state.read("test-distil")) == {"site-a", "site-b"}


@pytest.mark.parametrize("method", ["condist", "local"])
def test_competing_methods_run(method: str, make: Callable, tmp_path: Path) -> None:
    settings = quick(task="kd", method=method, output_seg=True, **PARTIAL, rounds=1, fedprox_mu=0.1, exp_name=method)
    state = run_in_process(settings, tmp_path, make(settings))
    steps = [s for s in make_plan(settings, labels_of_sites(settings)) if s.kind == "train"]
    assert [s.name for s in steps] == (["condist"] if method == "condist" else ["local-site-a", "local-site-b"])
    assert all(state.rounds(s.name) == 1 and state.read(f"test-{s.name}") for s in steps)


@pytest.mark.parametrize("pseudo_labels", ["keep", "weight"])
def test_soft_targets_are_learned_beside_pseudo_labels_however_sure_they_are(
    pseudo_labels: str, make: Callable, tmp_path: Path
) -> None:
    hard = quick(task="kd", method="kd", output_seg=True, **PARTIAL, rounds=1, pseudo_labels=pseudo_labels,
                 max_spread_mm=500.0, uncertainty_samples=1, stage="distil", exp_name="hard")  # fmt: skip
    soft = hard.replace(soft_targets=1.0, exp_name="soft")
    one, two = (run_in_process(s, tmp_path, make(s)).load("distil") for s in (hard, soft))
    assert max(np.abs(one[k] - two[k]).max() for k in one) > 1e-4


def test_task_networks_can_see_the_heart_and_be_tested_after_every_round(make: Callable, tmp_path: Path) -> None:
    settings = quick(rounds=1, condition_on_seg=True, test_on_global_updates=True, test_on_local_updates=True,
                     locations=("site-a",))  # fmt: skip
    state = run_in_process(settings, tmp_path, make(settings))
    assert state.load("fedavg")["backbone.input_block.conv1.conv.weight"].shape[1] == 1 + len(HEART_LABELS)
    rows = (state.folder / "history.csv").read_text(encoding="utf-8")
    for tested in ("local", "global"):
        assert f"fedavg,0,site-a,hps.RCC,{tested}_median_points," in rows
    assert "test-fedavg,0,site-a,hps.RCC,median_points," in rows


def test_published_weights_are_tested_without_training_anywhere(make: Callable, tmp_path: Path) -> None:
    first = quick(locations=("site-a",), rounds=1, exp_name="first")
    state = run_in_process(first, tmp_path, make(first))
    folder = export(first, state, tmp_path / "models")
    settings = first.replace(mode="test", ckpt=str(folder), test_locations=("site-a",), exp_name="again")
    again = run_in_process(settings, tmp_path, make(settings))
    assert again.read("test")["site-a"]["hps"] == state.read("test-fedavg")["site-a"]["hps"]
    assert not list(again.folder.glob("*.safetensors"))


def test_the_model_card_of_a_private_training_says_how_private(make: Callable, tmp_path: Path) -> None:
    settings = quick(locations=("site-a",), rounds=1, dp_noise=4.0, dp_clip=0.5)
    state = run_in_process(settings, tmp_path, make(settings))
    card = (export(settings, state, tmp_path / "models") / "README.md").read_text(encoding="utf-8")
    assert "ε = 2.5 at δ = 1e-05" in card, "2/σ² + 2·sqrt(2/σ²·ln(1/δ)) with σ = 4"


def test_a_site_sends_nothing_of_heads_that_it_has_no_label_of(make: Callable) -> None:
    settings = quick(task="kd", method="condist", output_seg=True, **PARTIAL, rounds=1)
    step = make_plan(settings, labels_of_sites(settings))[0]
    reply = make(settings)["site-a"].handle(Order(step.name, "train", 0, {"model": initial_parameters(step, 0)}))
    heads = {n.split(".")[1] for n in reply.changes if n.startswith(("heads.", "coarse."))}
    assert heads == {"heart", "hps"} and set(reply.counts) == {"trunk", "heart", "hps"}


def test_finetuning_changes_heads_only(make: Callable, tmp_path: Path) -> None:
    first = quick(locations=("site-a",), rounds=1, exp_name="first")
    run_in_process(first, tmp_path, make(first))
    start = tmp_path / "server" / "first" / "fedavg.safetensors"
    settings = first.replace(ckpt=str(start), finetune=True, exp_name="second")
    state = run_in_process(settings, tmp_path, make(settings))
    before, after = State(start.parent, first).load("fedavg"), state.load("fedavg")
    changed = {n.split(".")[0] for n in after if not np.array_equal(before[n], after[n])}
    assert changed == {"heads", "coarse"}


def test_the_second_look_of_a_checkpoint_comes_out_with_the_weights(make: Callable, tmp_path: Path) -> None:
    first = quick(locations=("site-a",), rounds=1, exp_name="first")
    bare = ccf.from_pretrained(export(first, run_in_process(first, tmp_path, make(first)), tmp_path / "models"))
    assert not bare.refiners
    lent = {f"refiners.hps.{name}": values for name, values in PointRefiner(5, 8).state_dict().items()}
    start = ccf.export_pretrained(joined(bare, lent), tmp_path / "models", tag="start", dtype=torch.float32)
    settings = first.replace(ckpt=str(start), exp_name="second")
    state = run_in_process(settings, tmp_path, make(settings))
    folder = export(settings, state, tmp_path / "models")
    found = ccf.from_pretrained(folder).state_dict()
    assert all(torch.equal(found[name], values) for name, values in lent.items())
    heads = [name for name in found if name.startswith("heads.")]
    assert any(not torch.equal(found[name], bare.state_dict()[name]) for name in heads), "they were trained"
    assert "- Second look at points: of the weights it started from" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("teacher", ["unet", "swin_unetr"])
def test_a_teacher_has_the_checkpoint_s_second_look_only_where_it_began_there(teacher: str, tmp_path: Path) -> None:
    settings = quick(task="kd", method="kd", output_seg=True, model_type="swin_unetr", teacher_type=teacher,
                     ckpt="cardiac_swin_tiny", **PARTIAL, rounds=1)  # fmt: skip
    state = State(tmp_path / "state", settings)
    step = make_plan(settings, labels_of_sites(settings))[0]
    state.save(step.name, initial_parameters(step, 0), 1)
    state.save(SECOND_LOOK, {f"refiners.hps.{k}": v.numpy() for k, v in PointRefiner(5, 8).state_dict().items()}, 0)
    (state.folder / "history.csv").write_text("step,measure,part,site,value\n", encoding="utf-8")
    found = ccf.from_pretrained(export(settings, state, tmp_path / "models", step.name))
    assert (set(found.refiners) == {"hps"}) == (teacher == "swin_unetr")
    assert ("second_look" in found.config.provenance) == (teacher == "swin_unetr")


def test_teachers_train_whole_even_when_the_student_is_finetuned(make: Callable, tmp_path: Path) -> None:
    first = quick(task="kd", method="fedavg", output_seg=True, **PARTIAL, rounds=1, stage="distil", exp_name="first")
    run_in_process(first, tmp_path, make(first))
    settings = first.replace(
        method="kd", finetune=True, ckpt=str(tmp_path / "server" / "first" / "fedavg.safetensors"),
        uncertainty_samples=1, exp_name="second",
    )  # fmt: skip
    state = run_in_process(settings, tmp_path, make(settings))
    steps = {s.name: s for s in make_plan(settings, labels_of_sites(settings))}
    starts = {"teach-hps": initial_parameters(steps["teach-hps"], settings.seed)}
    starts["distil"] = State(tmp_path / "server" / "first", first).load("fedavg")
    moved = {
        name: any(not np.array_equal(start[n], v) for n, v in state.load(name).items() if n.startswith("backbone."))
        for name, start in starts.items()
    }
    assert moved == {"teach-hps": True, "distil": False}


def test_a_site_trains_in_bfloat16_where_it_is_told_to_and_sends_float32(make: Callable, tmp_path: Path) -> None:
    plain = quick(locations=("site-a",), rounds=1, precision="float32", exp_name="plain")
    half = plain.replace(precision="bfloat16", exp_name="half")
    one, two = (run_in_process(s, tmp_path, make(s)).load("fedavg") for s in (plain, half))
    step = make_plan(plain, labels_of_sites(plain))[0]
    start = initial_parameters(step, plain.seed)
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in two.values())
    moved, apart = (np.sqrt(sum(((two[n] - other[n]) ** 2).sum() for n in two)) for other in (start, one))
    assert 0 < apart < moved, "rounded on the way, but the same way"


def test_checkpoints_that_do_not_fit_are_refused_before_any_round(make: Callable, tmp_path: Path) -> None:
    first = quick(locations=("site-a",), rounds=1, exp_name="first")
    run_in_process(first, tmp_path, make(first))
    ckpt = str(tmp_path / "server" / "first" / "fedavg.safetensors")
    for changes, said in (
        ({"model_type": "swin_unetr"}, "parameters of the trunk differ"),
        ({"task": "kd", "output_seg": True}, "has the heads hps, but heart, ms, calc is needed"),
    ):
        settings = quick(**PARTIAL, ckpt=ckpt, **changes)
        with pytest.raises(ConfigError, match=said):
            check(settings, make_plan(settings, labels_of_sites(settings)))
    distilling = quick(task="kd", method="kd", output_seg=True, **PARTIAL, ckpt=ckpt, exp_name="third")
    with pytest.raises(ConfigError, match="has the heads hps"):
        run_in_process(distilling, tmp_path, make(distilling))
    assert not list((tmp_path / "server" / "third").glob("*.safetensors")), "not even a teacher was trained"


class Saboteur(SiteWorker):
    """A site whose updates go wrong in a chosen way."""

    damage: Callable[[Reply], None]

    def handle(self, order: Order) -> Reply:
        reply = super().handle(order)
        if order.kind == "train":
            self.damage(reply)
        return reply


@pytest.mark.parametrize("way", ["not finite", "wrong architecture", "no data"])
def test_a_bad_update_is_left_out_by_name_and_the_run_goes_on(way: str, make: Callable, tmp_path: Path) -> None:
    def damage(reply: Reply) -> None:
        name = next(iter(reply.changes))
        if way == "not finite":
            reply.changes[name] = np.full_like(reply.changes[name], np.nan)
        elif way == "wrong architecture":
            reply.changes[name] = np.zeros((1, 2, 3), np.float32)
        else:
            reply.counts = {}

    settings = quick(holdings=("site-a=heart,hps", "site-b=heart,hps"), rounds=1)
    workers = make(settings)
    alone = run_in_process(settings, tmp_path / "alone", {**workers, "site-b": Silent()}).load("fedavg")  # type: ignore[dict-item]
    bad = workers["site-a"]
    spoiled = Saboteur(bad.site, settings, list(bad.steps.values()), tmp_path / "b")
    spoiled.site.name, spoiled.damage = "site-b", damage  # type: ignore[method-assign]
    good = make(settings)["site-a"]
    said: list[str] = []
    state = run_in_process(settings, tmp_path / "both", {"site-a": good, "site-b": spoiled}, said.append)
    assert any(line.startswith("fedavg  round 1  site-b is left out") for line in said)
    assert all(np.array_equal(alone[k], v) for k, v in state.load("fedavg").items())


class Silent:
    """A site that can do nothing."""

    def handle(self, order: Order) -> Reply:
        return Reply("site-b", order.step, order.round, left_out="failed")


def test_a_site_without_usable_data_is_left_out_and_without_any_site_the_run_stops(
    make: Callable, tmp_path: Path
) -> None:
    settings = quick(rounds=1)
    said: list[str] = []
    run_in_process(settings, tmp_path, make(settings), said.append)
    assert "fedavg  round 1  site-b is left out: it has no scan that this step can use" in said
    alone = quick(locations=("site-b",), rounds=1, exp_name="alone")
    with pytest.raises(FederationError, match="no site could train round 0"):
        run_in_process(alone, tmp_path, make(alone))


def test_training_that_explodes_is_reported_as_not_finite(make: Callable) -> None:
    settings = quick(locations=("site-a",), lr=1e20, epochs=3)
    step = make_plan(settings, labels_of_sites(settings))[0]
    reply = make(settings)["site-a"].handle(Order(step.name, "train", 0, {"model": initial_parameters(step, 0)}))
    assert reply.left_out == "not finite" and not reply.changes


def test_a_full_disk_at_a_site_is_said_and_the_run_goes_on(make: Callable, lists: dict, tmp_path: Path) -> None:
    settings = quick(task="kd", method="kd", output_seg=True, **PARTIAL, rounds=1)
    plan = make_plan(settings, labels_of_sites(settings))
    blocked = tmp_path / "full"
    blocked.write_text("a file where the working folder should be")
    worker = SiteWorker(folder_site("site-a", lists["site-a"], settings, tmp_path), settings, plan, blocked)
    teachers = {s.name: initial_parameters(s, 0) for s in plan if s.name.startswith("teach-")}
    assert worker.handle(Order("label", "label", 0, teachers)).left_out == "disk full"
