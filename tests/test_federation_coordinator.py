"""The server's side of rounds and tests that not every site answers: asked again, counted, never lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from federation_sites import quick

from recipes.federated_distillation.coordinator import Coordinator
from recipes.federated_distillation.export import command, metrics, provenance, untested
from recipes.federated_distillation.messages import Order, Reply
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import labels_of_sites
from recipes.federated_distillation.state import State
from recipes.federated_distillation.watch import History


class Sites:
    """Answers orders with a change of every parameter or one error in mm, as far as a site is there."""

    def __init__(self, *here: str) -> None:
        self.here = here
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, order: Order, sites: Sequence[str]) -> Iterator[Reply]:
        self.asked.append((order.step, tuple(sites)))
        for site in sites:
            if site in self.here:
                reply = Reply(site, order.step, order.round)
                if order.kind == "train":
                    reply.changes = {k: np.zeros_like(v) for k, v in order.parameters["model"].items()}
                    reply.counts = {"trunk": 1.0, "hps": 1.0}
                else:
                    reply.metrics = {"hps": {"points": {"RCC": [float(len(self.asked))]}}}
                yield reply


class Dying(Sites):
    """The server is killed when the first site has answered."""

    def __call__(self, order: Order, sites: Sequence[str]) -> Iterator[Reply]:
        yield next(super().__call__(order, sites))
        raise KeyboardInterrupt


def run(settings: Settings, folder: Path, sites: Sites) -> State:
    state, history = State(folder, settings), History(folder)
    plan = make_plan(settings, labels_of_sites(settings))
    try:
        assert Coordinator(settings, plan, state, sites, history).run()
    finally:
        history.close()
    return state


def test_a_site_that_was_away_is_tested_by_the_next_run_and_others_are_not_asked_twice(tmp_path: Path) -> None:
    settings = quick(rounds=1)
    test = make_plan(settings, labels_of_sites(settings))[-1]
    state = run(settings, tmp_path, Sites("site-a"))
    assert untested(state, test) == ["site-b"]
    before = state.read("test-fedavg")
    back = Sites("site-a", "site-b")
    state = run(settings, tmp_path, back)
    assert back.asked == [("test-fedavg", ("site-b",))]
    assert state.read("test-fedavg").keys() == {"site-a", "site-b"}
    assert state.read("test-fedavg")["site-a"] == before["site-a"]
    assert not untested(state, test)
    run(settings, tmp_path, done := Sites("site-a", "site-b"))
    assert not done.asked


def test_other_test_sites_are_asked_and_only_they_are_in_the_figures(tmp_path: Path) -> None:
    settings = quick(rounds=1, test_locations=("site-a",))
    run(settings, tmp_path, Sites("site-a", "site-b"))
    settings = settings.replace(test_locations=("site-b",))
    state = run(settings, tmp_path, sites := Sites("site-a", "site-b"))
    assert sites.asked == [("test-fedavg", ("site-b",))]
    step, test = make_plan(settings, labels_of_sites(settings))
    assert metrics(settings, state, test, step)["hps, mm, training sites"]["n"] == 1


def test_an_update_of_a_repeated_round_is_in_the_accountants_epsilon(tmp_path: Path) -> None:
    settings = quick(rounds=2, dp_noise=4.0)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path, Dying("site-a", "site-b"))
    state = run(settings, tmp_path, Sites("site-a", "site-b"))
    plan = make_plan(settings, labels_of_sites(settings))
    assert "3 updates" in provenance(settings, state, plan, plan[0])["differential_privacy"]


def test_a_card_tells_the_command_that_trained_and_not_the_one_that_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(rounds=2, threads=1)
    run(settings, tmp_path, Sites("site-a", "site-b"))
    monkeypatch.setattr("sys.argv", ["prog", "export", "--kit", str(tmp_path), "--out", str(tmp_path)])
    later = settings.replace(threads=2)
    plan = make_plan(later, labels_of_sites(later))
    said = provenance(later, State(tmp_path, later), plan, plan[0])["command"]
    assert said == command(settings)
    assert " run " in said and str(tmp_path) not in said
