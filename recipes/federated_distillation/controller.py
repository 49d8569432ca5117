"""NVFlare's side of the server: carries the coordinator's orders to the sites and their replies back. Nothing else."""

from __future__ import annotations

import os
import queue
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from cardiac_ct_fm.errors import CardiacCTError, ConfigError, DataError, WeightsError
from cardiac_ct_fm.files import write_json
from recipes.federated_distillation.coordinator import Coordinator
from recipes.federated_distillation.executor import HOME_VARIABLE
from recipes.federated_distillation.messages import Order, Reply
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import labels_of_sites
from recipes.federated_distillation.state import State
from recipes.federated_distillation.watch import History
from recipes.federated_distillation.wire import pack_order, register_arrays, unpack_reply

RESULT = "experiment"
"""As :mod:`recipes.federated_distillation.deployed` looks for it in a job's result."""

POLL_S = 0.05
"""Pause between looks for new replies."""


class FederationController(Controller):  # type: ignore[misc]  # NVFlare has no annotations
    """Runs a :class:`Coordinator` inside an NVFlare job.

    Args:
        settings: the experiment's, as :meth:`Settings.to_dict` gives them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(task_check_period=0.1)
        register_arrays()
        self._settings = Settings.from_dict(settings)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to prepare: everything is read from the breakpoint when the job runs."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to clean up: every round is on disk."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Go on with the experiment for the job's rounds."""
        settings = self._settings
        root = Path(os.environ.get(HOME_VARIABLE) or fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir())
        folder = root / ("server" if HOME_VARIABLE in os.environ else "federated_distillation") / settings.exp_name
        history = History(folder, lambda line: self.log_info(fl_ctx, line, fire_event=False))

        def ask(order: Order, sites: Sequence[str]) -> Iterator[Reply]:
            return self._ask(order, sites, abort_signal, fl_ctx)

        progress: dict[str, Any] = {"finished": False, "rounds": {}, "error": "", "hopeless": False}
        try:
            plan = make_plan(settings, labels_of_sites(settings))
            state = State(folder, settings)
            try:
                progress["finished"] = Coordinator(settings, plan, state, ask, history).run(settings.rounds_per_job)
            finally:
                progress["rounds"] = {s.name: state.rounds(s.name) for s in plan if s.kind == "train"}
        except CardiacCTError as error:
            progress |= {"error": str(error), "hopeless": isinstance(error, ConfigError | WeightsError)}
            self.system_panic(f"{settings.exp_name} stops: {error}", fl_ctx)
        finally:
            history.close()
            self._report(folder, progress, fl_ctx)

    def _report(self, folder: Path, progress: dict[str, Any], fl_ctx: FLContext) -> None:
        """Put progress, and the whole experiment when it is finished, where the lead's download finds it."""
        target = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_run_dir(fl_ctx.get_job_id())) / RESULT
        if progress["finished"]:
            shutil.copytree(folder, target, dirs_exist_ok=True)
        write_json(target / "progress.json", progress)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """An answer after its round has ended is left out; the round is on disk already."""
        self.log_warning(fl_ctx, f"{client.name} answered {task_name} too late; its answer is left out.")

    def _ask(self, order: Order, sites: Sequence[str], abort_signal: Signal, fl_ctx: FLContext) -> Iterator[Reply]:
        """Send an order to those of ``sites`` that take part in the job, and yield replies as they come."""
        here = [c.name for c in fl_ctx.get_engine().get_clients() if c.name in sites]
        if not here:
            return
        replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()

        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
            replies.put(self._reply(client_task, order))
            client_task.result = None

        task = Task(order.kind, pack_order(order), timeout=self._settings.round_timeout_s, result_received_cb=received)
        quorum = min(self._settings.quorum or len(here), len(here))
        self.broadcast(task, fl_ctx, here, quorum, self._settings.grace_s)
        while task.completion_status is None and not abort_signal.triggered:
            while not replies.empty():
                yield replies.get()
            time.sleep(POLL_S)
        if abort_signal.triggered:
            self.cancel_task(task, fl_ctx=fl_ctx)
            raise JobAbortedError(
                f"The job was aborted in {order.step}, round {order.round}; finished rounds are kept."
            )
        while not replies.empty():
            yield replies.get()

    def _reply(self, client_task: ClientTask, order: Order) -> Reply:
        """A site's reply; the site is who its certificate says, not who the reply says."""
        name, result = client_task.client.name, client_task.result
        if result.get_return_code() != ReturnCode.OK:
            return Reply(name, order.step, order.round, left_out="failed")
        try:
            reply = unpack_reply(result)
        except (DataError, KeyError, TypeError, ValueError) as error:
            self.logger.error("The answer of %s cannot be read: %s", name, error)
            return Reply(name, order.step, order.round, left_out="failed")
        reply.site = name
        return reply


class JobAbortedError(CardiacCTError):
    """Somebody aborted the job, or the server is going down."""
