"""What the server does: walks through the plan, averages what comes back, and writes a breakpoint after every round.

Knows no federation engine: it is given a way to ask sites, and gets their replies as they come.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cardiac_ct_fm.errors import CardiacCTError, ConfigError
from recipes.federated_distillation.aggregation import MaskedAverage, UpdateRefusedError
from recipes.federated_distillation.checkpoint import check, digest, public_name, second_look, starting_parameters
from recipes.federated_distillation.messages import Arrays, Order, Reply
from recipes.federated_distillation.plan import Step, due
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.state import CHECKPOINT, SECOND_LOOK, UPDATES, State
from recipes.federated_distillation.watch import History

logger = logging.getLogger("federated_distillation.server")

Ask = Callable[[Order, Sequence[str]], Iterable[Reply]]
"""Sends an order to sites and gives their replies; sites that do not answer in time are simply not among them."""


class FederationError(CardiacCTError):
    """The federation cannot go on; everything up to the last finished round is kept."""


class Coordinator:
    """One experiment, from its first or its next unfinished round on.

    Args:
        settings: the experiment's.
        plan: its steps.
        state: its breakpoint.
        ask: how to reach sites.
        history: where progress goes.
    """

    def __init__(self, settings: Settings, plan: list[Step], state: State, ask: Ask, history: History) -> None:
        self.settings, self.plan, self.state, self.ask, self.history = settings, plan, state, ask, history

    def run(self, rounds: int = 0) -> bool:
        """Go through the plan. Sites that are away do not hold up a test; the next call asks them again.

        Args:
            rounds: most rounds of training in this call; 0 for no limit.

        Returns:
            Whether everything is done.

        Raises:
            ConfigError: the checkpoint does not fit, or is another than the experiment began with; nothing was started.
            FederationError: no site could do a step, or too few answered.
            OutputError: a breakpoint cannot be written.
        """
        if not any(self.state.rounds(step.name) for step in self.plan):
            check(self.settings, self.plan)
        if self.settings.ckpt:
            self._pin_checkpoint()
        left = rounds or -1
        for step in due(self.plan, self.settings.stage):
            if step.kind == "train":
                for number in range(self.state.rounds(step.name), step.rounds):
                    if left == 0:
                        return False
                    self._train(step, number)
                    left -= 1
            elif step.kind == "label":
                self._label(step)
            else:
                self._test(step)
        return True

    def _pin_checkpoint(self) -> None:
        """Write down which weights the experiment begins with; with others it is not continued."""
        now = {"name": public_name(self.settings.ckpt), "sha256": digest(self.settings)}
        before = self.state.read(CHECKPOINT)
        if before is not None and before["sha256"] != now["sha256"]:
            raise ConfigError(
                f"ckpt {self.settings.ckpt} holds other weights than those that {self.state.folder} began with; give "
                "these (a folder, say), choose another --exp-name, or remove the folder."
            )
        self.state.write(CHECKPOINT, before or now)
        if again := second_look(self.settings):
            self.state.save(SECOND_LOOK, again, 0)

    def _train(self, step: Step, number: int) -> None:
        """One round: send, average, write."""
        model = self._parameters(step)
        average = MaskedAverage(model, self.settings.weighting == "equal")
        used: list[str] = []
        self._count(step.sites)
        for reply in self._replies(Order(step.name, "train", number, {"model": model}), step.sites):
            try:
                average.add(reply.site, reply.changes, reply.counts)
            except UpdateRefusedError as error:
                logger.warning("The update of %s is left out: %s", reply.site, error)
                self.history.left_out(step.name, number, reply.site, error.reason)
                continue
            used.append(reply.site)
            self.history.figures(step.name, number, reply.site, reply.metrics, reply.counts, "local_")
        if not used:
            raise FederationError(
                f"{step.name}: no site could train round {number}; see the reasons above and in history.csv."
            )
        model = average.apply_to_model()
        self.state.save(step.name, model, number + 1)
        self.history.round_done(step.name, number, step.rounds, sorted(used))
        if self.settings.test_on_global_updates:
            sites = self.settings.test_locations or self.settings.locations
            for reply in self._replies(Order(step.name, "test", number, {"model": model}), sites):
                self.history.figures(step.name, number, reply.site, reply.metrics, {}, "global_")

    def _count(self, sites: Sequence[str]) -> None:
        """Write down, before they are asked, how many updates each site was asked for; repeated rounds count again."""
        asked: dict[str, int] = self.state.read(UPDATES) or {}
        self.state.write(UPDATES, asked | {site: asked.get(site, 0) + 1 for site in sites})

    def _label(self, step: Step) -> None:
        """Let the teachers predict at all sites that have not done so and will still need it."""
        done: list[str] = self.state.read(step.name) or []
        needed = [s for s in self.plan if s.pseudo and self.state.rounds(s.name) < s.rounds]
        missing = [site for site in step.sites if site not in done]
        if not needed or not missing:
            return
        teachers = {source: self.state.load(source) for _, source in step.teachers}
        for reply in self._replies(Order(step.name, "label", 0, teachers), missing):
            done.append(reply.site)
            self.history.figures(step.name, 0, reply.site, reply.metrics, {})
        self.state.write(step.name, sorted(done))

    def _test(self, step: Step) -> None:
        """Collect the figures of all sites that have given none yet."""
        tested = step.source
        results: dict[str, Any] = self.state.read(step.name) or {}
        missing = [site for site in step.sites if site not in results]
        if not missing:
            return
        model = starting_parameters(self.settings, step) if tested == "ckpt" else self.state.load(tested)
        for reply in self._replies(Order(step.name, "test", 0, {"model": model}), missing):
            results[reply.site] = reply.metrics
            self.history.figures(step.name, 0, reply.site, reply.metrics, {})
        self.state.write(step.name, dict(sorted(results.items())))

    def _replies(self, order: Order, sites: Sequence[str]) -> Iterable[Reply]:
        """Usable replies; what is left out is said, by name."""
        seen: set[str] = set()
        answered = 0
        for reply in self.ask(order, sites):
            if reply.site not in sites or reply.site in seen or (reply.step, reply.round) != (order.step, order.round):
                logger.warning("An answer of %s does not belong to %s, round %d.", reply.site, order.step, order.round)
                continue
            seen.add(reply.site)
            answered += 1
            if reply.left_out:
                self.history.left_out(order.step, order.round, reply.site, reply.left_out)
            else:
                yield reply
        for site in sites:
            if site not in seen:
                self.history.left_out(order.step, order.round, site, "no answer")
        quorum = self.settings.quorum or 1
        if order.kind == "train" and answered < min(quorum, len(sites)):
            raise FederationError(
                f"{order.step}: {answered} of {len(sites)} sites answered round {order.round}, the quorum is {quorum}. "
                "Finished rounds are kept; start the run again when the sites are back."
            )

    def _parameters(self, step: Step) -> Arrays:
        """Where a step stands, or where it begins."""
        if self.state.rounds(step.name):
            return self.state.load(step.name)
        return starting_parameters(self.settings, step)
