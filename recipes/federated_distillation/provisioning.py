"""Start-up kits for server, sites and lead: certificates for mutual TLS, and local rules that admit no code.

NVFlare makes the certificates; what this adds is in each kit's ``local`` folder, where the party's own engineer can
read and change it: only this recipe's two classes, no job that carries code, no commands from afar, no logs sent away.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvflare.lighter.provision import prepare_builders, prepare_packager, prepare_project
from nvflare.lighter.provisioner import Provisioner

from cardiac_ct_fm.errors import ConfigError
from cardiac_ct_fm.files import write_json
from recipes.federated_distillation.nvflare_job import CLASS_POLICY

PROJECT = "cardiac_ct_federation"
"""Name of the NVFlare project; part of every kit."""

LEAD = "lead@hub.org"
"""The one person who may submit jobs; known by certificate, the name is only a name."""

CERTIFICATE_DAYS = 360
"""NVFlare's own validity of kits; the README says how to renew them."""

PERMISSIONS: dict[str, dict[str, str]] = {
    "lead": {
        "submit_job": "any",
        "clone_job": "none",
        "manage_job": "n:submitter",
        "download_job": "n:submitter",
        "view": "any",
        "operate": "none",
        "shell_commands": "none",
        "byoc": "none",
        "server-predeployed-flwr": "none",
    },
}
"""What a role may do at every party; a role that is not named may do nothing."""

_COMMON: dict[str, Any] = {"format_version": 2, **CLASS_POLICY}

SITE_RESOURCES: dict[str, Any] = {
    **_COMMON,
    "allow_log_streaming": False,
    "client": {"retry_timeout": 30, "compression": "Gzip"},
    "components": [
        {
            "id": "resource_manager",
            "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
            "args": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0},
        },
        {
            "id": "resource_consumer",
            "path": "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
            "args": {},
        },
        {
            "id": "process_launcher",
            "path": "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
            "args": {},
        },
    ],
}
"""A site's ``resources.json``: NVFlare's own, without the component that streams the site's error log to the server."""


def server_resources(kit: str) -> dict[str, Any]:
    """The server's ``resources.json``; jobs are stored inside of the kit instead of a shared temporary folder.

    Args:
        kit: where the server's kit will lie on its machine.
    """
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    return {
        **_COMMON,
        "servers": [
            {"admin_storage": "transfer", "max_num_clients": 100, "heart_beat_timeout": 600, "admin_timeout": 10.0}
        ],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {
                "uri_root": "/",
                "storage": {"path": storage, "args": {"root_dir": f"{kit}/storage/snapshots", "uri_root": "/"}},
            },
        },
        "components": [
            {
                "id": "job_scheduler",
                "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
                "args": {"max_jobs": 1, "min_schedule_interval": 1.0, "max_schedule_interval": 10.0},
            },
            {
                "id": "job_manager",
                "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                "args": {"uri_root": f"{kit}/storage/jobs", "job_store_id": "job_store"},
            },
            {"id": "job_store", "path": storage},
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher",
                "args": {},
            },
        ],
    }


def project(server: str, sites: Sequence[str], port: int, scheme: str) -> dict[str, Any]:
    """The project in the words of NVFlare's ``project.yml``."""
    builder = "nvflare.lighter.impl"
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "Federated distillation for cardiac CT",
        "participants": [
            {"name": server, "type": "server", "org": "hub", "fed_learn_port": port},
            *({"name": site, "type": "client", "org": site.replace("-", "_")} for site in sites),
            {"name": LEAD, "type": "admin", "org": "hub", "role": "lead"},
        ],
        "builders": [
            {"path": f"{builder}.workspace.WorkspaceBuilder"},
            {"path": f"{builder}.static_file.StaticFileBuilder", "args": {"config_folder": "config", "scheme": scheme}},
            {"path": f"{builder}.cert.CertBuilder"},
            {"path": f"{builder}.signature.SignatureBuilder"},
        ],
    }


def provision(
    server: str, sites: Sequence[str], out: Path, port: int = 8002, scheme: str = "tcp", server_home: str = ""
) -> dict[str, Path]:
    """Make a kit for every party.

    Args:
        server: the name by which sites reach the server; it stands in its certificate.
        sites: names of the sites.
        out: the project's folder. Run again with more sites, it adds kits and keeps the certificate authority; its
            ``state`` folder holds the authority's private key and stays with whoever provisions.
        port: the one port that the server listens on; sites and lead only dial out.
        scheme: ``tcp``, ``grpc`` or ``http``; all inside of mutual TLS.
        server_home: where the server's kit will lie on its machine; where it is made when empty.

    Returns:
        Party → kit.

    Raises:
        ConfigError: a name or the port cannot be used.
    """
    if not 1024 <= port <= 65535:
        raise ConfigError(f"port is {port}; it must lie in 1024…65535.")
    if scheme not in ("tcp", "grpc", "http"):
        raise ConfigError(f"scheme is {scheme!r}; choose tcp, grpc or http.")
    for name in sites:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"site {name!r} must be letters, digits, '-' or '_'.")
    described = project(server, sites, port, scheme)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "project.json", described)
    with contextlib.redirect_stdout(io.StringIO()):
        context = Provisioner(str(out.resolve()), prepare_builders(described), prepare_packager(described)).provision(
            prepare_project(described)
        )
    made = Path(context.get_result_location())
    kits = {name: made / name for name in (server, *sites, LEAD)}
    for name, kit in kits.items():
        if name == LEAD:
            continue
        resources = server_resources(server_home or str(kit)) if name == server else SITE_RESOURCES
        write_json(kit / "local" / "resources.json", resources)
        write_json(kit / "local" / "authorization.json", {"format_version": "1.0", "permissions": PERMISSIONS})
    return kits


def kit_facts(kit: Path) -> dict[str, str]:
    """What a kit is: ``role`` (server, site or lead), ``name`` and, for server and site, ``org``.

    Raises:
        ConfigError: not a kit.
    """
    for role, file, module in (
        ("server", "fed_server.json", "server_train"),
        ("site", "fed_client.json", "client_train"),
    ):
        if (kit / "startup" / file).exists():
            text = (kit / "startup" / "sub_start.sh").read_text(encoding="utf-8")
            words = next(t for t in text.splitlines() if module in t).split()
            values = dict(w.split("=", 1) for w in words if "=" in w)
            name = json.loads((kit / "startup" / file).read_text(encoding="utf-8"))["servers"][0]
            uid = values.get("uid") or str(name.get("admin_server", "server"))
            return {
                "role": role,
                "name": uid,
                "org": values["org"],
                "module": f"nvflare.private.fed.app.{role if role == 'server' else 'client'}.{module}",
                "file": file,
            }
    if (kit / "startup" / "fed_admin.json").exists():
        admin = json.loads((kit / "startup" / "fed_admin.json").read_text(encoding="utf-8"))["admin"]
        return {"role": "lead", "name": str(admin["username"])}
    raise ConfigError(f"{kit} is no start-up kit; it must hold startup/ and local/ as 'provision' writes them.")
