"""What a round costs besides training: server and sites over loopback with mutual TLS, a network of full size.

    python -m recipes.benchmarks.federation_transfer --sites 3 --rounds 3 --out out/federation-transfer

The server, its controller, averaging and breakpoints are the recipe's own, started from provisioned kits. The sites do
not train: each answers an order at once with a change of every parameter. So what is left is packing, encryption,
transfer, averaging and writing. Memory is the resident memory of a party's processes together, sampled twice a second.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]  # comes with NVFlare, has no annotations
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from cardiac_ct_fm.errors import CardiacCTError
from cardiac_ct_fm.files import write_json
from recipes.federated_distillation.deployed import session, start_party
from recipes.federated_distillation.messages import Reply
from recipes.federated_distillation.nvflare_job import write_job
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.provisioning import LEAD, provision
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.sites import labels_of_sites
from recipes.federated_distillation.wire import pack_reply, register_arrays, unpack_order

ANSWER = "recipes.benchmarks.federation_transfer.Answer"
SERVER = "localhost"
CHANGE = np.float32(1e-4)
"""What every parameter is changed by; its size is irrelevant, NVFlare's numpy arrays travel uncompressed."""
PAUSE_S = 0.5
PATIENCE_S = 1800.0
"""Longest wait for the sites to join, and for the job to end."""


class Answer(Executor):  # type: ignore[misc]  # NVFlare has no annotations
    """A site that answers without training.

    Args:
        settings: the experiment's, as every executor of the recipe is given them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        register_arrays()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Change every parameter a little."""
        order = unpack_order(shareable)
        model = order.parameters["model"]
        reply = Reply(fl_ctx.get_identity_name(), order.step, order.round)
        reply.changes = {name: np.full_like(values, CHANGE) for name, values in model.items()}
        reply.counts = dict.fromkeys(("trunk", "heart", "hps", "ms", "calc"), 1.0)
        return pack_reply(reply)


class Meter:
    """Resident memory and CPU time of parties, each with all of its processes."""

    def __init__(self, parties: dict[str, subprocess.Popen[bytes]]) -> None:
        self.parties = parties
        self.peak_bytes = dict.fromkeys(parties, 0)
        self._cpu: dict[int, float] = {}

    def sample(self) -> None:
        """Look once."""
        for name, party in self.parties.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                top = psutil.Process(party.pid)
                total = 0
                for process in [top, *top.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += process.memory_info().rss
                        self._cpu[process.pid] = sum(process.cpu_times()[:2])
                self.peak_bytes[name] = max(self.peak_bytes[name], total)

    @property
    def cpu_s(self) -> float:
        """User and system time of all processes seen so far."""
        return sum(self._cpu.values())


def measure(settings: Settings, out: Path) -> dict[str, Any]:
    """Provision, start, run and stop.

    Args:
        settings: sites, rounds and network.
        out: folder for kits, logs and the result; must not hold a federation yet.

    Returns:
        Sizes in MB, seconds per round, peak memory in GB.

    Raises:
        CardiacCTError: the parties do not join, or the job ends early.
    """
    with socket.socket() as probe:
        probe.bind((SERVER, 0))
        port = int(probe.getsockname()[1])
    kits = provision(SERVER, settings.locations, out / "kits", port)
    for site in settings.locations:
        file = kits[site] / "local" / "resources.json"
        rules = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, rules | {"class_allow_list": [ANSWER]})
    plan = make_plan(settings, labels_of_sites(settings))
    job = write_job(out / "job" / settings.exp_name, settings, plan)
    client = job / "app" / "config" / "config_fed_client.json"
    raw = json.loads(client.read_text(encoding="utf-8"))
    raw["executors"][0]["executor"]["path"] = ANSWER
    write_json(client, raw)
    parties = {name: start_party(kits[name], out / f"{name}.log") for name in (SERVER, *settings.locations)}
    meter = Meter(parties)
    try:
        status = _job(job, kits[LEAD], len(settings.locations), meter)
    finally:
        for party in parties.values():
            os.killpg(party.pid, signal.SIGKILL)
            party.wait()
    folder = kits[SERVER] / "federated_distillation" / settings.exp_name
    with (folder / "history.csv").open(encoding="utf-8", newline="") as history:
        rows = [r for r in csv.DictReader(history) if (r["site"], r["measure"]) == ("server", "sites")]
    ends = [float(r["time"]) for r in rows]
    if len(ends) < settings.rounds or any(r["value"] != str(len(settings.locations)) for r in rows):
        raise CardiacCTError(
            f"{len(ends)} of {settings.rounds} rounds ended ({status}); {out / 'localhost.log'} says why."
        )
    return {
        "network": plan[0].network.name,
        "parameters_mb": round(next(folder.glob("*.safetensors")).stat().st_size / 1e6, 1),
        "sites": len(settings.locations),
        "rounds": settings.rounds,
        "seconds_per_round": [round(b - a, 1) for a, b in itertools.pairwise(ends)],
        "cpu_seconds_of_all_parties": round(meter.cpu_s, 1),
        "peak_gb": {name: round(peak / 1e9, 2) for name, peak in meter.peak_bytes.items()},
        "ended": status,
    }


def _job(job: Path, kit: Path, sites: int, meter: Meter) -> str:
    """Submit the job when all sites have joined; sample until it ends."""
    begin = time.monotonic()
    with session(kit, PATIENCE_S) as connection, contextlib.redirect_stdout(io.StringIO()):
        while len(connection.get_connected_client_list()) < sites:
            _pause(begin, "sites to join")
        number = connection.submit_job(str(job))
        status = ""
        while not status.startswith("FINISHED"):
            meter.sample()
            _pause(begin, "the job to end")
            status = str(connection.get_job_meta(number).get("status"))
    return status


def _pause(begin: float, what: str) -> None:
    if time.monotonic() - begin > PATIENCE_S:
        raise CardiacCTError(f"Waited {PATIENCE_S:.0f} s for {what}; the parties' logs say why.")
    time.sleep(PAUSE_S)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sites", type=int, default=3, choices=range(1, 9))
    parser.add_argument("--rounds", type=int, default=3, help="the first one is not timed, so at least 2")
    parser.add_argument("--size", default="base", choices=("smoke", "tiny", "small", "base"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    names = tuple(f"site-{i + 1}" for i in range(args.sites))
    settings = Settings(
        method="fedavg", locations=names, size=args.size, rounds=args.rounds, stage="distil", exp_name="transfer"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    result = measure(settings, args.out.resolve())
    write_json(args.out / "federation_transfer.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
