"""The steps of an experiment in order: which network, which heads, which sites, how many rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cardiac_ct_fm.anatomy import heads_in_order
from cardiac_ct_fm.config import LookName, ModelConfig
from cardiac_ct_fm.errors import ConfigError, UnknownNameError
from recipes.federated_distillation.networks import network, window
from recipes.federated_distillation.settings import CHOICES, POINT_TASKS, Settings


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: its name in files, history and on the terminal.
        kind: ``train`` (rounds of FedAvg), ``label`` (teachers predict at the sites) or ``test``.
        network: the network that is trained, sent or tested.
        heads: heads that are trained, labelled or tested.
        sites: sites that take part.
        rounds: rounds of training; 1 for the other kinds.
        teachers: for ``label``: head → training step whose weights predict it.
        looks: looks that are trained on.
        conditional: the global network answers for heads that a scan has no label of (ConDistFL).
        pseudo: pseudo-labels of the site are used.
        source: for ``test``: the training step whose weights are tested.
    """

    name: str
    kind: str
    network: ModelConfig
    heads: tuple[str, ...]
    sites: tuple[str, ...]
    rounds: int = 1
    teachers: tuple[tuple[str, str], ...] = ()
    looks: tuple[LookName, ...] = ("root",)
    conditional: bool = False
    pseudo: bool = False
    source: str = ""

    @property
    def stage(self) -> str:
        """The stage of the experiment that it belongs to, one of ``CHOICES["stage"]``."""
        if self.kind != "train":
            return self.kind
        return "teach" if self.name.startswith("teach-") else "distil"


def due(plan: list[Step], stage: str) -> list[Step]:
    """The steps up to and including a stage."""
    order = CHOICES["stage"]
    return [s for s in plan if order.index(s.stage) <= order.index(stage)]


def make_plan(settings: Settings, labels: Mapping[str, frozenset[str]]) -> list[Step]:
    """The steps of an experiment.

    Args:
        settings: the experiment.
        labels: site → label types that it holds; the known sites.

    Raises:
        UnknownNameError: a location is not among the known sites.
        ConfigError: no chosen site holds a label that is needed, or the patch size does not fit.
    """
    for site in (*settings.locations, *settings.test_locations):
        if site not in labels:
            raise UnknownNameError("site", site, sorted(labels))
    if settings.mode == "test":
        steps = [_test(settings, "test", "ckpt", "student", _student_heads(settings))]
    elif settings.method == "local":
        steps = _local(settings, labels)
    elif settings.method == "kd":
        steps = _distillation(settings, labels)
    else:
        steps = _one_stage(settings, labels)
    for step in steps:
        window(settings, step.network)
    return steps


def final_step(steps: list[Step]) -> Step:
    """The last training step: its weights are what the experiment is for."""
    return [s for s in steps if s.kind == "train"][-1]


def _student_heads(settings: Settings) -> tuple[str, ...]:
    """Heads of the network that comes out."""
    own = POINT_TASKS if settings.task == "kd" else (settings.task,)
    return heads_in_order([*own, *(["heart"] if settings.output_seg else [])])


def _holders(settings: Settings, labels: Mapping[str, frozenset[str]], head: str) -> tuple[str, ...]:
    """Chosen sites that hold a label type."""
    found = tuple(site for site in settings.locations if head in labels[site])
    if not found:
        others = sorted(site for site, held in labels.items() if head in held)
        raise ConfigError(
            f"No chosen site holds labels of {head!r} (chosen: {', '.join(settings.locations)}); add one of "
            f"{', '.join(others) or 'none known'}."
        )
    return found


def _looks(settings: Settings) -> tuple[LookName, ...]:
    """A network with all heads looks three times, unless told otherwise; a task network around the root."""
    if settings.task != "kd":
        return ("root",)
    every: tuple[LookName, ...] = ("locate", "heart", "root")
    return tuple(look for look in every if not settings.looks or look in settings.looks)


def _teach(settings: Settings, head: str, sites: tuple[str, ...], name: str) -> Step:
    return Step(
        name, "train", network(settings, "teacher", (head,)), (head,), sites, settings.teacher_rounds or settings.rounds
    )


def _student(settings: Settings, sites: tuple[str, ...], name: str, **options: Any) -> Step:
    heads = _student_heads(settings)
    config = network(settings, "student", heads)
    return Step(name, "train", config, heads, sites, settings.rounds, looks=_looks(settings), **options)


def _test(settings: Settings, name: str, source: str, kind: str, heads: tuple[str, ...]) -> Step:
    sites = settings.test_locations or settings.locations
    return Step(name, "test", network(settings, kind, heads), heads, sites, source=source)


def _distillation(settings: Settings, labels: Mapping[str, frozenset[str]]) -> list[Step]:
    """Teach each task, label every scan, distil."""
    teaching = [_teach(settings, t, _holders(settings, labels, t), f"teach-{t}") for t in POINT_TASKS]
    teachers = tuple((t, f"teach-{t}") for t in POINT_TASKS)
    label = Step("label", "label", teaching[0].network, POINT_TASKS, settings.locations, teachers=teachers)
    student = _student(settings, settings.locations, "distil", pseudo=True)
    tests = [_test(settings, f"test-{s.name}", s.name, "teacher", s.heads) for s in teaching]
    return [*teaching, label, student, *tests, _test(settings, "test-distil", "distil", "student", student.heads)]


def _one_stage(settings: Settings, labels: Mapping[str, frozenset[str]]) -> list[Step]:
    """One network on real labels alone, or with the global network's answers for missing ones."""
    if settings.task == "kd":
        for task in POINT_TASKS:
            _holders(settings, labels, task)
        sites = settings.locations
    else:
        sites = _holders(settings, labels, settings.task)
    step = _student(settings, sites, settings.method, conditional=settings.method == "condist")
    return [step, _test(settings, f"test-{step.name}", step.name, "student", step.heads)]


def _local(settings: Settings, labels: Mapping[str, frozenset[str]]) -> list[Step]:
    """Each site alone; its network is tested everywhere."""
    sites = settings.locations if settings.task == "kd" else _holders(settings, labels, settings.task)
    training = [_student(settings, (site,), f"local-{site}") for site in sites]
    tests = [_test(settings, f"test-{s.name}", s.name, "student", s.heads) for s in training]
    return [*training, *tests]
