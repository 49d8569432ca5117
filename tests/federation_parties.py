"""A real federation on this machine: server and two sites as processes, mutual TLS, sites' traffic written down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from federation_sites import SUBJECTS, write_site

from recipes.federated_distillation.deployed import lead, session, start_party
from recipes.federated_distillation.provisioning import LEAD, provision
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.simulator import REPOSITORY

SITES = ("site-a", "site-b")
SERVER = "localhost"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


class Parties:
    """Starts, kills and watches the processes of one federation."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.tap = folder / "tap"
        self.tap.mkdir(parents=True)
        self.kits = provision(SERVER, SITES, folder / "kits", self.port)
        self.lists = {}
        for number, name in enumerate(SITES):
            self.lists[name] = write_site(folder / "hospital-data" / name, SUBJECTS[name], seed=number)
            config = {"data_list": str(self.lists[name]), "work": str(folder / "hospital-work" / name)}
            (self.kits[name] / "local" / "cardiac_site.json").write_text(json.dumps(config))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names:
            extra = {"OMP_NUM_THREADS": "1"}
            if name != SERVER:
                tap = Path(__file__).parent / "federation_tap"
                extra |= {"FEDERATION_TAP": str(self.tap), "PYTHONPATH": os.pathsep.join([str(tap), str(REPOSITORY)])}
            self.processes[name] = start_party(self.kits[name], self.folder / f"{name}.log", extra)

    def kill(self, name: str) -> None:
        """kill -9 of a party with the processes of its jobs."""
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes.pop(name).wait()

    def joined(self) -> list[str]:
        with session(self.kits[LEAD], 120) as connection:
            return sorted(c.name for c in connection.get_connected_client_list())

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = 300) -> None:
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < limit_s, (
                f"{what} did not happen within {limit_s} s; logs in {self.folder}"
            )
            time.sleep(0.2)

    def lead(self, settings: Settings) -> Path:
        return lead(settings, self.kits[LEAD], self.folder / "out", print, patience_s=120)

    def lead_in_background(self, settings: Settings) -> tuple[threading.Thread, list[Path]]:
        result: list[Path] = []
        thread = threading.Thread(target=lambda: result.append(self.lead(settings)), daemon=True)
        thread.start()
        return thread, result

    def history(self, settings: Settings) -> str:
        path = self.kits[SERVER] / "federated_distillation" / settings.exp_name / "history.csv"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
