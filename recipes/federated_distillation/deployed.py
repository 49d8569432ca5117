"""A real federation: start a party from its kit, and lead an experiment through jobs of some rounds each.

The lead's process may stop at any time: the server keeps a breakpoint after every round, and the next ``run`` goes on
from there. While server or sites are away it waits and tries again.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from cardiac_ct_fm.errors import CardiacCTError, ConfigError
from recipes.federated_distillation.coordinator import FederationError
from recipes.federated_distillation.nvflare_job import write_job
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.provisioning import kit_facts
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.simulator import environment
from recipes.federated_distillation.sites import labels_of_sites

RESULT = "experiment"
"""Folder of a job's result that holds breakpoint, figures and ``progress.json``."""

POLL_S = 1.0
"""Pause between looks at a running job."""


def party_command(kit: Path) -> list[str]:
    """The command that runs a server's or site's kit; what ``startup/start.sh`` runs too, without its restarts.

    Raises:
        CardiacCTError: the kit is a lead's, who starts nothing.
    """
    facts = kit_facts(kit)
    if facts["role"] == "lead":
        raise CardiacCTError(f"{kit} is the lead's kit; it starts no party. Use 'run --kit {kit}'.")
    command = [sys.executable, "-u", "-m", facts["module"], "-m", str(kit.resolve()), "-s", facts["file"]]
    values = [f"org={facts['org']}", "config_folder=config"]
    if facts["role"] == "site":
        values.insert(0, f"uid={facts['name']}")
    return [*command, "--set", "secure_train=true", *values]


def start_party(kit: Path, log: Path, extra: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server or a site in a process group of its own.

    Args:
        kit: its start-up kit.
        log: gets everything that it prints.
        extra: further environment variables.
    """
    with log.open("ab") as file:
        return subprocess.Popen(
            party_command(kit),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment() | (extra or {}),
            start_new_session=True,
        )


@contextlib.contextmanager
def session(kit: Path, patience_s: float = 60.0) -> Iterator[Session]:
    """The lead's connection to the server; waits for a server that is away.

    Raises:
        FederationError: the server does not answer within ``patience_s``.
    """
    name, begin = kit_facts(kit)["name"], time.monotonic()
    while True:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                opened = new_secure_session(name, str(kit), timeout=10.0)
            break
        except Exception as error:
            if time.monotonic() - begin > patience_s:
                raise FederationError(
                    f"The server does not answer within {patience_s:.0f} s ({error}); is it running, is its port open?"
                ) from error
            time.sleep(POLL_S)
    try:
        yield opened
    finally:
        opened.close()


def lead(
    settings: Settings, kit: Path, out: Path, say: Callable[[str], None], patience_s: float = 600.0, attempts: int = 5
) -> Path:
    """Run an experiment on a deployed federation, or go on with it.

    Args:
        settings: the experiment's.
        kit: the lead's kit.
        out: gets the finished experiment: breakpoints of all steps, history and figures.
        say: gets a line per event.
        patience_s: how long to wait for a server that is away.
        attempts: jobs in a row that may end without a finished round before this gives up.

    Returns:
        The experiment's folder.

    Raises:
        ConfigError: the server cannot begin with these settings; trying again would not help.
        FederationError: no progress in ``attempts`` jobs, or the server stays away.
    """
    plan = make_plan(settings, labels_of_sites(settings))
    before, fruitless = "", 0
    while True:
        with tempfile.TemporaryDirectory() as folder:
            result = _one_job(
                settings, write_job(Path(folder) / settings.exp_name, settings, plan), kit, folder, say, patience_s
            )
            if result is not None:
                progress = json.loads((result / "progress.json").read_text(encoding="utf-8"))
                if progress["finished"]:
                    return _keep(result, out / settings.exp_name)
                if progress["hopeless"]:
                    raise ConfigError(progress["error"])
                if progress["error"]:
                    say(progress["error"])
            now = json.dumps(progress["rounds"]) if result is not None else before
        fruitless = fruitless + 1 if now == before else 0
        before = now
        if fruitless >= attempts:
            raise FederationError(f"{attempts} jobs in a row finished no round; the server's log says why.")


def _one_job(
    settings: Settings, job: Path, kit: Path, folder: str, say: Callable[[str], None], patience_s: float
) -> Path | None:
    """Submit a job and wait for its end; None where the connection or the server was lost on the way."""
    try:
        with session(kit, patience_s) as connection:
            with contextlib.redirect_stdout(io.StringIO()):
                number = connection.submit_job(str(job))
            say(f"job {number} is submitted")
            with contextlib.redirect_stdout(io.StringIO()):
                status = ""
                while not status.startswith("FINISHED"):
                    time.sleep(POLL_S)
                    status = str(connection.get_job_meta(number).get("status"))
                place = Path(connection.download_job_result(number, folder))
            say(f"job {number} ended: {status}")
    except FederationError:
        raise
    except Exception as error:  # noqa: BLE001 - a server that dies shows as any of NVFlare's and gRPC's exceptions
        say(f"The connection was lost ({type(error).__name__}: {error}); trying again.")
        return None
    found = sorted(place.rglob(f"{RESULT}/progress.json"))
    return found[0].parent if found else None


def _keep(result: Path, target: Path) -> Path:
    """Move the downloaded experiment to where the lead wants it; older files of the same names are replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for file in result.rglob("*"):
        if file.is_file():
            goal = target / file.relative_to(result)
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(file.read_bytes())
    return target
