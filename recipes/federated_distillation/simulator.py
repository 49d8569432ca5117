"""One machine: NVFlare's simulator as a process of its own, all sites digital, progress on the terminal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cardiac_ct_fm.errors import MissingExtraError
from cardiac_ct_fm.files import write_json
from recipes.federated_distillation.coordinator import FederationError
from recipes.federated_distillation.nvflare_job import CLASS_POLICY, write_job
from recipes.federated_distillation.plan import due, make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import labels_of_sites
from recipes.federated_distillation.state import State
from recipes.federated_distillation.watch import follow, line

HOME_VARIABLE = "CARDIAC_FEDERATION_HOME"
"""As :mod:`recipes.federated_distillation.executor` reads it; repeated so that this module needs no NVFlare."""

REPOSITORY = Path(__file__).resolve().parents[2]


def simulate(settings: Settings, home: Path, say: Callable[[str], None], processes: int = 0) -> State:
    """Run an experiment in NVFlare's simulator, or go on with it.

    Args:
        settings: the experiment's.
        home: ``server/<experiment>``, ``sites/<name>`` and ``simulator`` are made in it.
        say: gets a line per event.
        processes: sites that work at the same time; all when 0. With fewer, NVFlare starts a process anew for every
            order, which costs several seconds each, and windows are drawn again.

    Returns:
        The breakpoint, with all results.

    Raises:
        MissingExtraError: NVFlare is not installed.
        FederationError: the simulator ended before the experiment; its log is named.
    """
    if not shutil.which("nvflare", path=str(Path(sys.executable).parent)):
        raise MissingExtraError("A federation", "federated")
    plan = make_plan(settings, labels_of_sites(settings))
    state = State(home / "server" / settings.exp_name, settings)
    whole = settings.replace(rounds_per_job=0)
    job = write_job(home / "simulator" / "job", whole, plan)
    sites = sorted({site for step in plan for site in step.sites})
    workspace = home / "simulator" / "workspace"
    shutil.rmtree(workspace, ignore_errors=True)
    write_json(workspace / "local" / "resources.json", {"format_version": 2, **CLASS_POLICY})
    count = min(processes or len(sites), len(sites))
    command = [sys.executable, "-m", "nvflare.private.fed.app.simulator.simulator", str(job.resolve())]
    command += ["-w", str(workspace.resolve()), "-c", ",".join(sites), "-t", str(count)]
    log = home / "simulator" / "log.txt"
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment(home), start_new_session=True
        )
        try:
            for row in follow(state.folder / "history.csv", lambda: process.poll() is None):
                text = line(row)
                if text:
                    say(text)
        finally:
            if process.poll() is None:  # somebody stopped this command: its simulator goes with it
                os.killpg(process.pid, signal.SIGKILL)
    asked = due(plan, settings.stage)
    unfinished = [s.name for s in asked if s.kind == "train" and state.rounds(s.name) < s.rounds]
    unfinished += [s.name for s in asked if s.kind == "test" and state.read(s.name) is None]
    if unfinished:
        panic = [t for t in log.read_text(encoding="utf-8", errors="replace").splitlines() if " stops: " in t]
        why = panic[-1].split(" stops: ", 1)[1] if panic else f"read {log}"
        raise FederationError(f"{unfinished[0]} did not end: {why} Start it again to go on.")
    return state


def environment(home: Path | None = None) -> dict[str, str]:
    """What NVFlare's processes need: to find this recipe, and where a simulated federation lives."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if home is not None:
        result[HOME_VARIABLE] = str(home.resolve())
    return result
