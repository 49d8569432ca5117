"""A Hub-compatible server on loopback: enough of the Hub's protocol for downloads and commits, with faults on demand.

Speaks what the ``huggingface_hub`` client asks: ``HEAD``/``GET …/resolve/REVISION/FILE`` with ETag, commit and Range;
``GET …/tree/REVISION`` for the list of files; ``POST /api/repos/create``, ``…/preupload/REVISION`` and
``…/commit/REVISION`` with files inside the request and names of files to delete.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

RESOLVE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
MODEL_API = re.compile(r"/api/models/(?P<repo>[\w.-]+/[\w.-]+)/(?P<verb>preupload|commit|tree)/(?P<revision>[^/]+)")


@dataclass
class Repository:
    """Files of each commit, branches and tags, and the token that a private repository asks for."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None

    def files(self, ref: str = "main") -> dict[str, bytes]:
        """What a branch holds; a new one nothing."""
        return self.commits.get(self.refs.get(ref, ""), {})

    def commit(self, files: dict[str, bytes], ref: str = "main", deleted: Collection[str] = ()) -> str:
        """Add files on top of a branch, without those that are deleted, and move the branch."""
        if unknown := set(deleted) - self.files(ref).keys():
            raise ValueError(f"{sorted(unknown)} are not there to be deleted")
        merged = {**{k: v for k, v in self.files(ref).items() if k not in deleted}, **files}
        name = hashlib.sha1(repr((sorted(merged), len(self.commits))).encode()).hexdigest()
        self.commits[name] = merged
        self.refs[ref] = name
        return name


@dataclass
class Fault:
    """What goes wrong with a file: a status for every request, or a GET cut off after some bytes, some times."""

    status: int | None = None
    cut_after: int | None = None
    times: int = 1_000_000


class HubServer:
    """The server and what a test sees of it: repositories, faults, and the requests that came."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def add_folder(self, repo: str, folder: Path, ref: str = "main") -> str:
        """Commit all files of a folder."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.repositories.setdefault(repo, Repository()).commit(files, ref)

    def count(self, method: str, ending: str) -> int:
        """How many requests of a kind came for a file."""
        return sum(m == method and path.endswith(ending) for m, path, _ in self.requests)

    def reset(self) -> None:
        """Forget faults and requests; repositories stay."""
        self.faults.clear()
        self.requests.clear()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Requests are recorded, not printed."""

        def do_HEAD(self) -> None:
            self._resolve(with_body=False)

        def do_GET(self) -> None:
            self._resolve(with_body=True)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self._record()
            fault = server.faults.get(path)
            if fault and fault.status:
                self._error(fault.status, None)
                return
            if path == "/api/repos/create":
                wanted = json.loads(body)
                repo = f"{wanted.get('organization') or 'user'}/{wanted['name']}"
                server.repositories.setdefault(repo, Repository())
                self._json({"url": f"{server.url}/{repo}", "name": repo})
                return
            if path == "/api/validate-yaml":
                self._json({"errors": [], "warnings": []})
                return
            match = MODEL_API.fullmatch(path)
            if match is None or match["repo"] not in server.repositories:
                self._error(404, "RepoNotFound")
            elif match["verb"] == "preupload":
                files = json.loads(body)["files"]
                self._json(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            else:
                lines = [json.loads(line) for line in body.splitlines()]
                files = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                deleted = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
                name = server.repositories[match["repo"]].commit(files, unquote(match["revision"]), deleted)
                url = f"{server.url}/{match['repo']}/commit/{name}"
                self._json({"success": True, "commitOid": name, "commitUrl": url, "hookOutput": ""})

        def _record(self) -> str:
            path = unquote(urlsplit(self.path).path)
            server.requests.append((self.command, path, dict(self.headers.items())))
            return path

        def _resolve(self, with_body: bool) -> None:
            path = self._record()
            listing = MODEL_API.fullmatch(path)
            if listing and listing["verb"] == "tree" and listing["repo"] in server.repositories:
                files = server.repositories[listing["repo"]].files(listing["revision"])
                self._json([{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in files.items()])
                return
            match = RESOLVE.fullmatch(path)
            repository = server.repositories.get(match["repo"]) if match else None
            if match is None or repository is None:
                self._error(404, "RepoNotFound")
                return
            if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
                self._error(401, "RepoNotFound")
                return
            commit = repository.refs.get(match["revision"], match["revision"])
            if commit not in repository.commits:
                self._error(404, "RevisionNotFound")
                return
            fault = server.faults.get(match["file"])
            if fault and fault.status:
                self._error(fault.status, None)
                return
            data = repository.commits[commit].get(match["file"])
            if data is None:
                self._error(404, "EntryNotFound", commit)
                return
            self._send_file(data, commit, fault, with_body)

        def _send_file(self, data: bytes, commit: str, fault: Fault | None, with_body: bool) -> None:
            start = 0
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if wanted:
                start = int(wanted[1])
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(data) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not with_body:
                return
            if fault and fault.cut_after is not None and fault.times > 0:
                fault.times -= 1
                self.wfile.write(data[start : start + fault.cut_after])
                self.close_connection = True
                return
            self.wfile.write(data[start:])

        def _json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _error(self, status: int, code: str | None, commit: str | None = None) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler
