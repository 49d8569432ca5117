"""A deployed federation: real processes over loopback with mutual TLS, what may not happen, what survives kill -9."""

from __future__ import annotations

import csv
import io
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from federation_parties import SERVER, SITES, Parties
from federation_sites import SUBJECTS, quick
from safetensors.numpy import save_file

from cardiac_ct_fm.errors import ConfigError
from recipes.federated_distillation.in_process import run_in_process
from recipes.federated_distillation.messages import Order, Reply
from recipes.federated_distillation.nvflare_job import CONTROLLER, write_job
from recipes.federated_distillation.plan import make_plan
from recipes.federated_distillation.settings import Settings
from recipes.federated_distillation.site_worker import SiteWorker
from recipes.federated_distillation.sites import folder_site, labels_of_sites
from recipes.federated_distillation.state import State
from recipes.federated_distillation.trainee import initial_parameters

pytest.importorskip("nvflare")


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    made = Parties(tmp_path_factory.mktemp("federation"))
    try:
        made.start(SERVER, *SITES)
        made.wait(lambda: made.joined() == list(SITES), "both sites joining")
        yield made
    finally:
        made.close()


class Absent(SiteWorker):
    """A site that answers only the rounds that it answered in the run that it is compared with."""

    rounds: frozenset[int]

    def handle(self, order: Order) -> Reply:
        if order.kind == "train" and order.round not in self.rounds:
            return Reply(self.site.name, order.step, order.round, left_out="no answer")
        return super().handle(order)


def reference(parties: Parties, settings: Settings, history: str, folder: Path) -> dict[str, np.ndarray]:
    """The same experiment without engine, with the sites that took part in each round."""
    plan = make_plan(settings, labels_of_sites(settings))
    took_part: dict[str, set[int]] = {name: set() for name in SITES}
    for row in csv.DictReader(io.StringIO(history)):
        if row["step"] == "fedavg" and row["measure"] == "loss":
            took_part[row["site"]].add(int(row["round"]))
    workers: dict[str, SiteWorker] = {}
    for name in SITES:
        worker = Absent(folder_site(name, parties.lists[name], settings, folder / name), settings, plan, folder / name)
        worker.rounds = frozenset(took_part[name])
        workers[name] = worker
    return run_in_process(settings, folder, workers).load("fedavg")


def difference(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> float:
    assert set(one) == set(two)
    return max(float(np.abs(one[k] - two[k]).max()) for k in one)


def handshake(parties: Parties, certificate: Path | None) -> bool:
    """Whether the server keeps a connection open that shows this kit's certificate, or none."""
    context = ssl.create_default_context(cafile=str(parties.kits["site-a"] / "startup" / "rootCA.pem"))
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(certificate / "startup" / "client.crt", certificate / "startup" / "client.key")
    with socket.create_connection(("localhost", parties.port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="localhost") as tls:
                tls.settimeout(3)
                return tls.recv(1) != b""
        except TimeoutError:
            return True
        except (ssl.SSLError, ConnectionError):
            return False


def test_nothing_joins_without_a_certificate_of_this_federation(parties: Parties, tmp_path: Path) -> None:
    from recipes.federated_distillation.provisioning import provision

    stranger = provision(SERVER, ["site-a"], tmp_path, parties.port)["site-a"]
    assert not handshake(parties, None)
    assert not handshake(parties, stranger)
    assert handshake(parties, parties.kits["site-a"])
    with pytest.raises(OSError), socket.create_connection(("localhost", parties.port), timeout=10) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
        raw.settimeout(5)
        if raw.recv(1)[:1] in (b"", b"\x15"):  # closed, or a TLS alert: plain text is not spoken here
            raise ConnectionResetError


def test_jobs_that_carry_code_are_refused(parties: Parties, tmp_path: Path) -> None:
    from recipes.federated_distillation.deployed import session
    from recipes.federated_distillation.provisioning import LEAD

    settings = quick(exp_name="code")
    job = write_job(tmp_path / "code", settings, make_plan(settings, labels_of_sites(settings)))
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "stowaway.py").write_text("print('here')")
    with session(parties.kits[LEAD], 60) as connection:
        number = connection.submit_job(str(job))

        def status() -> str:
            return str(connection.get_job_meta(number)["status"])

        parties.wait(lambda: status().startswith("FINISHED"), "the refusal")
        assert "COMPLETED" not in status()
    assert "BYOC not permitted" in (parties.folder / f"{SERVER}.log").read_text(encoding="utf-8")
    for name in SITES:
        assert not list(parties.kits[name].rglob("stowaway*")), "the code reached no site"
    assert not list((parties.kits[SERVER] / "federated_distillation").glob("code*")), "nothing of the job ran"


def test_a_checkpoint_that_does_not_fit_is_refused_at_once_and_the_lead_told(parties: Parties, tmp_path: Path) -> None:
    first = quick(exp_name="first")
    step = make_plan(first, labels_of_sites(first))[0]
    ckpt = tmp_path / "hps.safetensors"
    save_file(initial_parameters(step, 0), ckpt)
    settings = quick(task="kd", method="kd", output_seg=True, exp_name="misfit", ckpt=str(ckpt),
                     holdings=("site-a=heart,hps", "site-b=heart,ms,calc"))  # fmt: skip
    with pytest.raises(ConfigError, match="has the heads hps, but heart, ms, calc is needed"):
        parties.lead(settings)
    assert not list((parties.kits[SERVER] / "federated_distillation" / "misfit").glob("*.safetensors"))


def test_kits_allow_two_classes_no_code_no_commands_and_stream_no_logs(parties: Parties) -> None:
    for name in (SERVER, *SITES):
        local = parties.kits[name] / "local"
        resources = json.loads((local / "resources.json").read_text())
        rights: dict[str, Any] = json.loads((local / "authorization.json").read_text())["permissions"]
        assert len(resources["class_allow_list"]) == 2 and CONTROLLER in resources["class_allow_list"]
        assert resources["class_list_enforcement_mode"] == "enforce"
        assert set(rights) == {"lead"}
        assert rights["lead"]["byoc"] == rights["lead"]["shell_commands"] == "none"
        if name != SERVER:
            assert resources["allow_log_streaming"] is False
            assert not [c for c in resources["components"] if "log" in c["id"]]


def test_real_processes_give_the_engine_free_weights_and_nothing_private_crosses_the_wire(
    parties: Parties, tmp_path: Path
) -> None:
    settings = quick(exp_name="calm", rounds=1)
    folder = parties.lead(settings)
    history = (folder / "history.csv").read_text(encoding="utf-8")
    weights = State(folder, settings).load("fedavg")
    assert difference(weights, reference(parties, settings, history, tmp_path)) <= 1e-5
    assert set(State(folder, settings).read("test-fedavg")) == set(SITES)

    sent = b"".join(p.read_bytes() for p in sorted(parties.tap.glob(f"*.{parties.port}.bytes")))
    assert b'"left_out"' in sent and b"backbone." in sent and len(sent) > sum(v.nbytes for v in weights.values())
    private = [str(parties.folder / "hospital-data"), "hospital-work", "ct.nii.gz", "points.json", "data.json"]
    for subject in (*SUBJECTS["site-a"], *SUBJECTS["site-b"]):
        private += [subject, subject.replace("^", "_"), *subject.split("^")]
    assert [text for text in private if text.encode() in sent] == []
    intensity = make_plan(settings, labels_of_sites(settings))[0].network.intensity
    for name in SITES:
        for row in json.loads(parties.lists[name].read_text())["training"]:
            voxels = np.asanyarray(nib.load(parties.lists[name].parent / row["image"]).dataobj)
            for line in (voxels[20, 20], voxels[:, 20, 20], voxels[20, :, 20]):
                scaled = (line.clip(intensity.low_hu, intensity.high_hu) - intensity.mean_hu) / intensity.std_hu
                for kind in (np.int16, np.float32, np.float64):
                    assert line.astype(kind)[:8].tobytes() not in sent
                assert scaled.astype(np.float32)[:8].tobytes() not in sent


def test_kill_9_of_a_site_and_of_the_server_loses_no_finished_round(parties: Parties, tmp_path: Path) -> None:
    settings = quick(exp_name="stormy", rounds=5, rounds_per_job=2, quorum=1, grace_s=2, lr=1e-3)

    def finished(number: int) -> bool:
        return f"fedavg,{number},server,all,sites" in parties.history(settings)

    thread, result = parties.lead_in_background(settings)
    parties.wait(lambda: finished(0), "the first round")
    parties.kill("site-b")
    parties.wait(lambda: finished(1), "a round without the killed site")
    parties.start("site-b")
    parties.wait(lambda: finished(2), "the next job")
    before = parties.history(settings)
    parties.kill(SERVER)
    parties.start(SERVER)
    thread.join(300)
    assert result, "the lead's process ended without a result"
    history = (result[0] / "history.csv").read_text(encoding="utf-8")
    assert history.startswith(before)
    for number in range(settings.rounds):
        assert history.count(f"fedavg,{number},server,all,sites") == 1, "every round is done, and done once"
    weights = State(result[0], settings).load("fedavg")
    assert difference(weights, reference(parties, settings, history, tmp_path)) <= 1e-5
