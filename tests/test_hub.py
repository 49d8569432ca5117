"""Hub repositories through the real client, against a Hub-compatible server on loopback."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from hub_client import logits_digest
from hub_server import Fault, HubServer, Repository
from small_models import files_of, published_model, small_config, small_model

import cardiac_ct_fm as ccf

REPO = "org/small"
TOKEN = "hf_a_secret_that_must_not_be_logged"


class Client:
    """The process of ``hub_client.py`` with its environment; what it logs is kept."""

    def __init__(self, endpoint: str, folder: Path, **environment: str) -> None:
        self.log = folder / "client.log"
        self._stream: IO[str] = self.log.open("w")
        here = Path(__file__).parent
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        self._process = subprocess.Popen(
            [sys.executable, str(here / "hub_client.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stream,
            text=True,
            env={
                **inherited,
                "PYTHONPATH": os.pathsep.join([str(here.parent), *sys.path]),
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(folder / "hf-home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                **environment,
            },
        )

    def ask(self, verb: str = "load", **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **request}, default=str) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        reply: dict[str, Any] = json.loads(line)
        return reply

    def refused(self, **request: Any) -> str:
        """The message of a load that must fail as a WeightsError, in one line."""
        reply = self.ask(**request)
        assert reply.get("error") == "WeightsError", reply
        assert "\n" not in reply["message"]
        return str(reply["message"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._stream.close()


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def client(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(server.url, tmp_path_factory.mktemp("client"))
    yield client
    client.close()


@pytest.fixture(autouse=True)
def published(server: HubServer, tmp_path: Path) -> str:
    """A fresh server with one model; its commit."""
    server.repositories.clear()
    server.reset()
    small_model().save_pretrained(tmp_path / "published")
    return server.add_folder(REPO, tmp_path / "published")


def test_a_model_is_downloaded_verified_and_then_served_from_the_cache(
    server: HubServer, client: Client, tmp_path: Path, published: str
) -> None:
    reply = client.ask(source=REPO, cache_dir=tmp_path / "cache")
    assert reply == {
        "logits": logits_digest(small_model()),
        "heads": ["heart", "hps"],
        "verified": True,
        "files": [str(tmp_path / f"cache/models--org--small/snapshots/{published}/model.safetensors")],
    }
    assert server.count("GET", "model.safetensors") == 1
    assert client.ask(source=REPO, cache_dir=tmp_path / "cache")["logits"] == reply["logits"]
    assert server.count("GET", "model.safetensors") == 1, "the ETag had not changed"
    client.ask(source=REPO, cache_dir=tmp_path / "cache", force_download=True)
    assert server.count("GET", "model.safetensors") == 2


def test_all_files_of_a_model_come_from_one_commit(server: HubServer, client: Client, tmp_path: Path) -> None:
    client.ask(source=REPO, cache_dir=tmp_path / "cache")
    revisions = {path.split("/resolve/")[1].split("/")[0] for _, path, _ in server.requests if "safetensors" in path}
    assert revisions == {server.repositories[REPO].refs["main"]}


def test_a_new_commit_is_fetched_and_an_old_revision_stays_reachable(
    server: HubServer, client: Client, tmp_path: Path, published: str
) -> None:
    server.repositories[REPO].refs["v1"] = published
    small_model(seed=1).save_pretrained(tmp_path / "second")
    server.add_folder(REPO, tmp_path / "second")
    cache = {"cache_dir": tmp_path / "cache"}
    assert client.ask(source=REPO, **cache)["logits"] == logits_digest(small_model(seed=1))
    for old in ({"source": f"{REPO}@v1"}, {"source": REPO, "revision": published}):
        assert client.ask(**old, **cache)["logits"] == logits_digest(small_model())
    assert "has no revision 'v9'" in client.refused(source=f"{REPO}@v9", **cache)


def test_shards_are_fetched_through_their_index(server: HubServer, client: Client, tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path / "sharded", max_shard_bytes=150_000)
    server.add_folder("org/sharded", tmp_path / "sharded")
    reply = client.ask(source="org/sharded", cache_dir=tmp_path / "cache")
    assert len(reply["files"]) > 1
    assert reply["logits"] == logits_digest(small_model())


def test_a_file_with_another_sha256_is_refused(server: HubServer, client: Client, tmp_path: Path) -> None:
    repository = server.repositories[REPO]
    data = bytearray(repository.commits[repository.refs["main"]]["model.safetensors"])
    data[-1] ^= 1
    repository.commit({"model.safetensors": bytes(data)})
    message = client.refused(source=REPO, cache_dir=tmp_path / "cache")
    assert "has sha256" in message
    assert "force_download=True" in message


def test_a_repository_of_others_without_published_sha256_is_loaded_as_not_verified(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "published" / "registry.json").unlink()
    server.add_folder("org/plain", tmp_path / "published")
    reply = client.ask(source="org/plain", cache_dir=tmp_path / "cache")
    assert (reply["verified"], reply["logits"]) == (False, logits_digest(small_model()))
    assert client.log.read_text().count("org/plain has no registry.json") == 1


def test_a_repository_that_holds_only_a_pickle_is_refused_without_fetching_it(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    config = (tmp_path / "published" / "config.json").read_bytes()
    server.repositories["org/pickled"] = Repository()
    server.repositories["org/pickled"].commit({"config.json": config, "pytorch_model.bin": b"PK"})
    assert "has no model.safetensors" in client.refused(source="org/pickled", cache_dir=tmp_path / "cache")
    assert server.count("GET", "pytorch_model.bin") == 0


def test_a_private_repository_needs_the_token_which_is_never_logged(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    server.repositories[REPO].token = TOKEN
    refused = client.refused(source=REPO, cache_dir=tmp_path / "cache", token=False)
    assert "your token gives no access (HTTP 401)" in refused
    assert "hf auth login" in refused
    wrong = client.refused(source=REPO, cache_dir=tmp_path / "cache", token=TOKEN + "x")
    assert client.ask(source=REPO, cache_dir=tmp_path / "cache", token=TOKEN)["verified"]
    sent = [headers.get("authorization", headers.get("Authorization")) for _, _, headers in server.requests]
    assert f"Bearer {TOKEN}" in sent
    assert "DEBUG" in client.log.read_text(), "the client's log is being looked at"
    assert TOKEN not in client.log.read_text() + refused + wrong


def test_a_repository_that_does_not_exist_is_named(client: Client, tmp_path: Path) -> None:
    message = client.refused(source="org/nothing", cache_dir=tmp_path / "cache")
    assert message.startswith("org/nothing was not found on http://127.0.0.1")
    assert "HTTP 404" in message
    assert "has no file x.safetensors" in client.refused(source=REPO, heads=[f"{REPO}/x.safetensors"])


def test_without_a_hub_a_name_that_may_be_a_folder_is_told_to_be_none(tmp_path: Path) -> None:
    lonely = Client("http://127.0.0.1:9", tmp_path)  # nobody listens on the port of "discard"
    message = lonely.refused(source="runs/mine")
    lonely.close()
    assert "runs/mine/config.json cannot be fetched from http://127.0.0.1:9 (Connect" in message
    assert "or, where a folder was meant, its path: there is none called runs/mine here" in message


@pytest.mark.parametrize("file", ["config.json", "registry.json", "model.safetensors"])
def test_a_server_error_is_reported_and_never_taken_for_a_missing_file(
    file: str, server: HubServer, client: Client, tmp_path: Path
) -> None:
    server.faults[file] = Fault(status=503)
    message = client.refused(source=REPO, cache_dir=tmp_path / "cache")
    assert f"{REPO}/{file} cannot be fetched" in message
    assert "HTTP 503; try again later" in message
    server.reset()
    assert client.ask(source=REPO, cache_dir=tmp_path / "cache")["verified"]


def test_a_server_error_falls_back_to_what_the_cache_holds(server: HubServer, client: Client, tmp_path: Path) -> None:
    first = client.ask(source=REPO, cache_dir=tmp_path / "cache")
    for file in ("config.json", "registry.json", "model.safetensors"):
        server.faults[file] = Fault(status=503)
    assert client.ask(source=REPO, cache_dir=tmp_path / "cache") == first


def test_a_connection_cut_mid_file_resumes_where_it_stopped(server: HubServer, client: Client, tmp_path: Path) -> None:
    """The file is larger than the client's 10 MiB chunk, so that there is something to resume from."""
    model = ccf.create_model("cardiac_swin_tiny", seed=0).eval()
    model.save_pretrained(tmp_path / "tiny", max_shard_bytes=50_000_000)
    server.add_folder("org/tiny", tmp_path / "tiny")
    server.faults["model.safetensors"] = Fault(cut_after=12_000_000, times=1)
    reply = client.ask(source="org/tiny", cache_dir=tmp_path / "cache")
    assert reply["logits"] == logits_digest(model)
    ranges = [
        h.get("range", h.get("Range")) for m, p, h in server.requests if m == "GET" and p.endswith(".safetensors")
    ]
    assert ranges == [None, "bytes=10485760-"]


def test_a_connection_that_is_always_cut_leaves_nothing_half_written(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    server.faults["model.safetensors"] = Fault(cut_after=1000)
    message = client.refused(source=REPO, cache_dir=tmp_path / "cache")
    assert "check the connection" in message
    assert not list((tmp_path / "cache").rglob("snapshots/*/model.safetensors"))
    server.reset()
    assert client.ask(source=REPO, cache_dir=tmp_path / "cache")["verified"]


def test_offline_the_cache_serves_and_the_network_is_not_asked(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert "the network is switched off" in client.refused(source=REPO, cache_dir=cache, local_files_only=True)
    online = client.ask(source=REPO, cache_dir=cache)
    server.reset()
    assert client.ask(source=REPO, cache_dir=cache, local_files_only=True) == online
    offline = Client(server.url, tmp_path, HF_HUB_OFFLINE="1")
    try:
        assert offline.ask(source=REPO, cache_dir=cache) == online
        assert "the network is switched off" in offline.refused(source="org/other", cache_dir=cache)
    finally:
        offline.close()
    assert server.requests == []


def test_offline_a_repository_without_published_sha256_is_known_to_have_none(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "published" / "registry.json").unlink()
    server.add_folder("org/plain", tmp_path / "published")
    online = client.ask(source="org/plain", cache_dir=tmp_path / "cache")
    assert client.ask(source="org/plain", cache_dir=tmp_path / "cache", local_files_only=True) == online


def test_a_pushed_model_comes_back_bit_identical_with_its_card(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    reply = client.ask("push", folder=tmp_path / "published", repo="org/pushed", token=TOKEN)
    assert reply["url"].startswith(f"{server.url}/org/pushed/commit/")
    pushed = server.repositories["org/pushed"]
    files = pushed.commits[pushed.refs["main"]]
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "registry.json"]
    assert b"not a medical device" in files["README.md"]
    again = client.ask(source="org/pushed", cache_dir=tmp_path / "cache")
    assert (again["verified"], again["logits"]) == (True, logits_digest(small_model()))
    assert TOKEN not in client.log.read_text()


def test_a_published_model_is_pushed_as_it_is(server: HubServer, client: Client, tmp_path: Path) -> None:
    folder = published_model(tmp_path / "weights")
    published = files_of(folder)
    (folder / "patients.csv").write_text("nobody else's business")
    assert "url" in client.ask("push", folder=folder, repo="org/mine", token=TOKEN)
    mine = server.repositories["org/mine"]
    assert mine.commits[mine.refs["main"]] == published
    assert {"README.md", "registry.json", "pictures/coronaries.png"} < set(published)
    assert b"| Dice | 0.875 |" in published["README.md"]
    again = client.ask(source="org/mine", cache_dir=tmp_path / "cache")
    assert again["verified"]


def test_a_model_of_a_repository_is_pushed_to_another_with_card_and_pictures(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    folder = published_model(tmp_path / "weights")
    first = server.add_folder("org/theirs", folder)
    server.repositories["org/theirs"].refs["v1"] = first
    small_model(seed=1).save_pretrained(tmp_path / "later")
    server.add_folder("org/theirs", tmp_path / "later")
    cache = tmp_path / "cache"
    assert "url" in client.ask("push", folder="org/theirs@v1", repo="org/mine", token=TOKEN, cache_dir=cache)
    mine = server.repositories["org/mine"]
    assert mine.commits[mine.refs["main"]] == files_of(folder), "the files of that commit, not of a later one"


def test_a_push_that_cannot_keep_the_card_says_so(server: HubServer, client: Client, tmp_path: Path) -> None:
    folder = published_model(tmp_path / "weights")
    (folder / "pictures" / "coronaries.png").unlink()
    server.add_folder("org/unpictured", folder)
    cache = tmp_path / "cache"
    assert "url" in client.ask("push", folder="org/unpictured", repo="org/mine", token=TOKEN, cache_dir=cache)
    assert (
        "without the figures of the published card: Hub repository org/unpictured has no pictures/coronaries.png"
        in client.log.read_text()
    )
    again = client.ask(source="org/mine", cache_dir=cache)
    assert (again["verified"], again["logits"]) == (True, client.ask(source=folder, cache_dir=cache)["logits"])


def test_a_card_that_somebody_edited_is_not_pushed(server: HubServer, client: Client, tmp_path: Path) -> None:
    folder = published_model(tmp_path / "weights")
    published = files_of(folder)
    (tmp_path / "notes.txt").write_text("patient 4711")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "notes.txt")
    assert "url" in client.ask("push", folder=folder, repo="org/mine", token=TOKEN)
    assert server.repositories["org/mine"].files() == published


def test_a_private_model_is_saved_with_its_pictures_and_the_token_is_written_nowhere(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    folder = published_model(tmp_path / "weights")
    server.add_folder("org/private", folder)
    server.repositories["org/private"].token = TOKEN
    request = {"source": "org/private", "cache_dir": tmp_path / "cache", "out": tmp_path / "mine"}
    reply = client.ask("save", token=TOKEN, **request)
    assert files_of(tmp_path / "mine") == files_of(folder)
    assert TOKEN not in reply["shown"] + client.log.read_text()
    assert TOKEN.encode().hex() not in reply["kept"]


def test_a_model_that_was_loaded_without_the_network_is_saved_without_it(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    folder = published_model(tmp_path / "weights")
    server.add_folder("org/told", folder)
    request = {"source": "org/told", "cache_dir": tmp_path / "cache"}
    online = client.ask(**request)
    server.reset()
    client.ask("save", **request, out=tmp_path / "bare", local_files_only=True)
    assert server.requests == []
    assert client.ask(source=tmp_path / "bare") == {**online, "files": [str(tmp_path / "bare" / "model.safetensors")]}
    assert "pictures/coronaries.png is not in the cache and the network is switched off" in client.log.read_text()
    client.ask("save", **request, out=tmp_path / "pictured")
    server.reset()
    client.ask("save", **request, out=tmp_path / "mine", local_files_only=True)
    assert server.requests == []
    assert files_of(tmp_path / "mine") == files_of(tmp_path / "pictured") == files_of(folder)


def test_a_model_that_takes_the_place_of_another_leaves_nothing_of_it(
    server: HubServer, client: Client, tmp_path: Path
) -> None:
    small_model(seed=1).save_pretrained(tmp_path / "sharded", max_shard_bytes=150_000)
    pictured = published_model(tmp_path / "weights")
    others = {
        "coronaries.safetensors": b"a head",
        "heads/model.safetensors": b"another",
        "pictures/ours/group.png": b"people",
        "pictures/notes.txt": b"notes",
        "model-a.safetensors": b"?",
    }
    server.repositories["org/mine"] = Repository()
    server.repositories["org/mine"].commit(others)
    cache = tmp_path / "cache"
    for folder in (pictured, tmp_path / "sharded", pictured, tmp_path / "published"):
        assert "url" in client.ask("push", folder=folder, repo="org/mine", token=TOKEN)
        assert server.repositories["org/mine"].files() == {**others, **files_of(folder)}
        again = client.ask(source="org/mine", cache_dir=cache)
        assert (again["verified"], again["logits"]) == (True, client.ask(source=folder)["logits"])


@pytest.mark.parametrize(("status", "message"), [(401, "HTTP 401.*hf auth login"), (503, "HTTP 503; try again later")])
def test_a_push_that_the_hub_refuses_is_one_clear_line(
    status: int, message: str, server: HubServer, client: Client, tmp_path: Path
) -> None:
    server.faults["/api/repos/create"] = Fault(status=status)
    reply = client.ask("push", folder=tmp_path / "published", repo="org/refused", token=TOKEN)
    assert reply["error"] == "OutputError"
    assert re.search(message, reply["message"])
    assert "\n" not in reply["message"]
    assert TOKEN not in reply["message"] + client.log.read_text()
    assert "is not the name" in client.ask("push", folder=tmp_path / "published", repo="a/b/c", token=TOKEN)["message"]


def test_a_head_file_of_a_megabyte_travels_through_the_hub(server: HubServer, client: Client, tmp_path: Path) -> None:
    trunk = small_config("residual u-net", "wide")
    wide = ccf.create_model(trunk.replace(backbone=dataclasses.replace(trunk.backbone, feature_size=12)), seed=0)
    wide.save_pretrained(tmp_path / "wide")
    server.add_folder("org/wide", tmp_path / "wide")
    model = ccf.from_pretrained(tmp_path / "wide")
    model.add_head("coronaries", ["Coronary"], own_decoder=True, looks=["heart"])
    path = model.save_head("coronaries", tmp_path / "head" / "coronaries.safetensors")
    assert path.stat().st_size > 1_000_000
    server.add_folder("group/heads", path.parent)
    heads = ["heart", "group/heads/coronaries.safetensors"]
    reply = client.ask(source="org/wide", cache_dir=tmp_path / "cache", heads=heads)
    assert reply["heads"] == ["heart", "coronaries"]
    here = ccf.from_pretrained(tmp_path / "wide", heads=["heart", path])
    assert reply["logits"] == logits_digest(here)
    with torch.no_grad():
        model.backbone.input_block.conv1.conv.weight.add_(1.0)
    model.save_pretrained(tmp_path / "other")
    assert "trained on the trunk" in client.refused(
        source=tmp_path / "other", cache_dir=tmp_path / "cache", heads=["group/heads/coronaries.safetensors"]
    )
