"""The methods side by side on one machine: trained in turn without engine, tested on the same held-out patients.

Every method and network is an experiment of its own, so that a stopped comparison goes on where it was. Figures of
single patients are kept for paired tests; that is why only digital sites are compared here: a real site sends none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cardiac_ct_fm.config import LookConfig
from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.files import atomic_write, write_json
from recipes.federated_distillation.checkpoint import check, starting_parameters
from recipes.federated_distillation.in_process import run_in_process
from recipes.federated_distillation.local_training import Drawn
from recipes.federated_distillation.messages import Arrays
from recipes.federated_distillation.plan import Step, final_step, make_plan
from recipes.federated_distillation.scans import Scan
from recipes.federated_distillation.scoring import HeldOutWindow, draw_held_out_window, errors
from recipes.federated_distillation.settings import METHODS, NETWORKS, POINT_TASKS, Settings
from recipes.federated_distillation.site_worker import SiteWorker
from recipes.federated_distillation.sites import Site, digital_site, labels_of_sites
from recipes.federated_distillation.state import State
from recipes.federated_distillation.trainee import model_from

START = "start"
"""Name under which the checkpoint's own scores stand."""

PatientScores = dict[str, dict[str, Any]]
"""Patient → head → ``points`` or ``dice`` → name → value, as :func:`.scoring.errors` gives it."""


class Comparison:
    """All methods on the same digital sites.

    Args:
        settings: what they have in common; method, network and name are set per experiment.
        home: ``server/<experiment>``, ``sites/<name>`` and ``comparison/<name>`` are made in it.
        say: gets a line per event.

    Raises:
        ConfigError: the sites are not digital, a single task is asked for, or a test alone.
    """

    def __init__(self, settings: Settings, home: Path, say: Callable[[str], None]) -> None:
        if not settings.local:
            raise ConfigError("A comparison tests single patients, which real sites never send: give --local.")
        if settings.task != "kd":
            raise ConfigError(f"task is {settings.task!r}; methods are compared on networks with all heads: --task kd.")
        if settings.mode != "train":
            raise ConfigError(f"mode is {settings.mode!r}; a comparison trains what it tests. Leave --mode out.")
        self.settings, self.home, self.say = settings, home, say
        self.folder = home / "comparison" / settings.exp_name
        self._sites: dict[str, Site] = {}
        self._drawn: dict[str, Drawn] = {}
        self._windows: dict[tuple[str, float, int], HeldOutWindow] = {}

    def experiment(self, method: str, network: str) -> Settings:
        """The settings of one method with one network."""
        name = f"{self.settings.exp_name}-{method}-{network.replace('_', '-')}"
        return self.settings.replace(method=method, model_type=network, exp_name=name, stage="distil")

    def run(self, methods: Sequence[str] = METHODS, networks: Sequence[str] = NETWORKS) -> None:
        """Train and test what is missing, one method after the other.

        Raises:
            ConfigError: a network cannot begin at the checkpoint; nothing was started.
            FederationError: a step failed.
        """
        for network in networks:
            settings = self.experiment("fedavg", network)
            check(settings, make_plan(settings, labels_of_sites(settings)))
        for network in networks:
            self._test_start(self.experiment("fedavg", network))
            for method in methods:
                self._train(self.experiment(method, network))
                self._test(self.experiment(method, network))

    def scores(self, settings: Settings, step: str) -> dict[str, PatientScores] | None:
        """Site → patient → errors of a trained step; None where it was not tested yet."""
        path = self.folder / f"{settings.exp_name}.{step}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def _site(self, name: str) -> Site:
        if name not in self._sites:
            self._sites[name] = digital_site(name, self.settings)
        return self._sites[name]

    def _window(self, scan: Scan, look: LookConfig) -> HeldOutWindow:
        """A held-out patient's window, drawn once for all networks."""
        key = (scan.key, look.spacing_mm, look.window)
        if key not in self._windows:
            self._windows[key] = draw_held_out_window(scan, look, scan.labels, self.settings.seed)
        return self._windows[key]

    def _train(self, settings: Settings) -> None:
        """One experiment up to its last network."""
        plan = make_plan(settings, labels_of_sites(settings))
        self._lend_teachers(settings, plan)
        workers = {
            name: SiteWorker(
                self._site(name),
                settings.for_sites(),
                plan,
                self.home / "sites" / name,
                drawn=self._drawn.setdefault(name, {}),
            )
            for name in settings.locations
        }
        run_in_process(settings, self.home, workers, lambda text: self.say(f"{settings.exp_name}: {text}"))

    def _lend_teachers(self, settings: Settings, plan: Sequence[Step]) -> None:
        """Take finished teachers from the same experiment with another network: they are the same bit by bit."""
        target = State(self.home / "server" / settings.exp_name, settings)
        for network in NETWORKS:
            other = self.experiment("kd", network)
            folder = self.home / "server" / other.exp_name
            if settings.method != "kd" or other == settings or not (folder / "settings.json").exists():
                continue
            source = State(folder, other)
            for step in plan:
                name = f"{step.name}.safetensors"
                if step.name.startswith("teach-") and source.rounds(step.name) > target.rounds(step.name):
                    with atomic_write(target.folder / name) as part:
                        shutil.copyfile(folder / name, part)

    def _test(self, settings: Settings) -> None:
        """Every final network, and the teachers, on the held-out patients of all sites."""
        state = State(self.home / "server" / settings.exp_name, settings)
        for step in make_plan(settings, labels_of_sites(settings)):
            if step.kind == "train" and self.scores(settings, step.name) is None:
                self._test_network(settings, step, state.load(step.name), step.name)

    def _test_start(self, settings: Settings) -> None:
        """The checkpoint as it came; its scores stand with those of plain averaging."""
        if settings.ckpt and not settings.finetune and self.scores(settings, START) is None:
            step = final_step(make_plan(settings, labels_of_sites(settings)))
            self._test_network(settings, step, starting_parameters(settings, step), START)

    def _test_network(self, settings: Settings, step: Step, parameters: Arrays, name: str) -> None:
        """One network on the held-out patients of all sites."""
        model = model_from(step, parameters)
        heads = [h for h in step.heads if h in POINT_TASKS]
        look = model.config.look("root")
        result: dict[str, PatientScores] = {}
        for site in settings.test_locations or settings.locations:
            windows = {s.patient: self._window(s, look) for s in self._site(site).held_out}
            result[site] = {patient: errors(model, window, heads) for patient, window in windows.items()}
        write_json(self.folder / f"{settings.exp_name}.{name}.json", result)
        self.say(f"{settings.exp_name}: {name} is tested")
