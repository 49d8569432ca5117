"""The NVFlare job of an experiment: three small JSON files, and no code.

The job names classes that are installed at every party (``byoc: none``); all it carries is the settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipes.federated_distillation.plan import Step
from recipes.federated_distillation.settings import Settings

CONTROLLER = "recipes.federated_distillation.controller.FederationController"
EXECUTOR = "recipes.federated_distillation.executor.SiteExecutor"

CLASS_POLICY: dict[str, Any] = {
    "class_list_enforcement_mode": "enforce",
    "class_allow_list": [CONTROLLER, EXECUTOR],
}
"""All that a job may name at any party, as NVFlare's ``resources.json`` says it."""


def write_job(folder: Path, settings: Settings, plan: list[Step]) -> Path:
    """Write the job.

    Args:
        folder: made where it does not exist.
        settings: the experiment's.
        plan: its steps; all of their sites are asked to take part.

    Returns:
        The folder.
    """
    sites = sorted({site for step in plan for site in step.sites})
    quorum = settings.quorum or 1
    meta = {
        "name": settings.exp_name,
        "resource_spec": {},
        "min_clients": min(quorum, len(sites)),
        "deploy_map": {"app": ["server", *sites]},
    }
    server = {
        "format_version": 2,
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [],
        "workflows": [{"id": "federation", "path": CONTROLLER, "args": {"settings": settings.to_dict()}}],
    }
    client = {
        "format_version": 2,
        "task_data_filters": [],
        "task_result_filters": [],
        "components": [],
        "executors": [
            {"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {"settings": settings.for_sites().to_dict()}}}
        ],
    }
    _write(folder / "meta.json", meta)
    _write(folder / "app" / "config" / "config_fed_server.json", server)
    _write(folder / "app" / "config" / "config_fed_client.json", client)
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
