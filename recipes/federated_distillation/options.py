"""Command-line options made from :class:`Settings`: one per field, with its description and the original's spelling."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

from cardiac_ct_fm.errors import ConfigError
from recipes.federated_distillation.presets import PRESETS
from recipes.federated_distillation.settings import CHOICES, Settings

OLD_NAMES: dict[str, tuple[str, ...]] = {
    "rounds": ("--num_rounds",),
    "exp_name": ("-e",),
    "locations": ("-l",),
    "tags": ("-t",),
}
"""Spellings of the research code beside our own; underscores are understood everywhere."""

OLD_VALUES: dict[str, dict[str, str]] = {
    "task": {"0": "kd", "1": "hps", "2": "ms", "3": "calc"},
    "model_type": {"nnunet": "unet"},
}
"""Values of the research code."""


def descriptions() -> dict[str, str]:
    """Field → its sentence in the class docstring, which is the only place where it is written."""
    text = inspect.getdoc(Settings) or ""
    body = text.split("Attributes:", 1)[1]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", body, re.MULTILINE)
    return {name: " ".join(words.split()).replace("``", "").replace("%", "%%") for name, words in found}


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option per field of :class:`Settings`; what is not given comes from the preset."""
    group = parser.add_argument_group("the experiment", "Defaults: the preset's, then the paper's.")
    group.add_argument("--preset", choices=sorted(PRESETS), help="a named starting point")
    group.add_argument("--config", type=Path, help="settings as JSON, as settings.json of an experiment has them")
    told = descriptions()
    for field in dataclasses.fields(Settings):
        dashed = "--" + field.name.replace("_", "-")
        names = [*OLD_NAMES.get(field.name, ()), dashed, *(["--" + field.name] if "_" in field.name else [])]
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": told[field.name]}
        default = field.default
        if isinstance(default, bool):
            group.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        elif isinstance(default, tuple):
            group.add_argument(*names, nargs="+", metavar="NAME", **options)
        else:
            metavar = "{" + ",".join(CHOICES[field.name]) + "}" if field.name in CHOICES else field.name.upper()
            group.add_argument(*names, type=type(default), metavar=metavar, **options)


def settings_from(args: argparse.Namespace, **fixed: Any) -> Settings:
    """Preset, then file, then options.

    Raises:
        ConfigError: a value does not do, or the file is not JSON.
    """
    raw: dict[str, Any] = dict(PRESETS[args.preset]) if args.preset else {}
    if args.config:
        try:
            raw |= json.loads(args.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{args.config} holds no settings as JSON: {error}.") from error
    for field in dataclasses.fields(Settings):
        if hasattr(args, field.name):
            value = getattr(args, field.name)
            raw[field.name] = OLD_VALUES.get(field.name, {}).get(value, value) if isinstance(value, str) else value
    if raw.get("task", "kd") != "kd" and "method" not in raw:
        raw["method"] = "fedavg"
    return Settings.from_dict(raw | fixed)
