"""What is known of an architecture or of weights for it, and ``registry.json``, which says it. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardiac_ct_fm.errors import WeightsError

MANIFEST = "registry.json"
"""Name of the file that describes a folder of weights."""

MANIFEST_VERSION = 1
"""Version of ``registry.json``; raised when its meaning changes."""

_TEXT, _TEXT_OR_NONE = (str,), (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "name": _TEXT,
    "tag": _TEXT_OR_NONE,
    "heads": (list,),
    "parameters": (int,),
    "license": _TEXT_OR_NONE,
    "description": _TEXT,
    "default": (bool,),
    "files": (dict,),
    "repo_id": _TEXT_OR_NONE,
    "revision": _TEXT_OR_NONE,
    "metrics": (dict,),
    "provenance": (dict,),
    "pictures": (dict,),
}
"""The keys of ``registry.json`` beside its version, and what each may be."""


@dataclass(frozen=True)
class ModelInfo:
    """What is known of an architecture, or of one set of weights for it.

    Attributes:
        name: architecture name.
        tag: name of the weights, None for the architecture alone.
        heads: head names.
        parameters: number of weights, trunk and heads together.
        pretrained: whether weights can be loaded by this name, here and now.
        license: SPDX identifier of the weights.
        description: one line for people.
        default: whether ``name`` without a tag means these weights.
        files: file name → ``{"sha256": …, "bytes": …}``.
        repo_id: Hub repository that holds the files, None where they lie beside ``registry.json``.
        revision: commit of that repository.
        metrics: measured figures, each with what it was measured on.
        provenance: data, recipe, command, seed.
        pictures: file in the folder → caption; the card shows them.
        folder: where ``registry.json`` was found; None for an architecture and for weights that are not here.
    """

    name: str
    tag: str | None = None
    heads: tuple[str, ...] = ()
    parameters: int = 0
    pretrained: bool = False
    license: str | None = None
    description: str = ""
    default: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    repo_id: str | None = None
    revision: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def full_name(self) -> str:
        """``name.tag``, or the architecture's name."""
        return self.name if self.tag is None else f"{self.name}.{self.tag}"

    @property
    def sha256(self) -> dict[str, str]:
        """File name → sha256."""
        return {name: str(facts["sha256"]) for name, facts in self.files.items()}

    @property
    def size_bytes(self) -> int:
        """Size of all files of the weights."""
        return sum(int(facts.get("bytes", 0)) for facts in self.files.values())

    def to_manifest(self) -> dict[str, Any]:
        """The content of ``registry.json``."""
        plain = {key: getattr(self, key) for key in _KINDS}
        return {"format_version": MANIFEST_VERSION, **plain, "heads": list(self.heads)}

    @classmethod
    def from_manifest(cls, path: Path) -> ModelInfo:
        """Read a ``registry.json``.

        Raises:
            WeightsError: not such a file, or of another version.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            version = raw.pop("format_version")
            if version != MANIFEST_VERSION:
                raise WeightsError(
                    f"{path} has format_version {version!r}; this version of cardiac-ct-fm reads {MANIFEST_VERSION}. "
                    "Install the version that wrote it."
                )
            _check_kinds(raw)
            raw["heads"] = tuple(raw["heads"])
            info = cls(**raw, pretrained=True, folder=path.parent)
            if not all(len(digest) == 64 for digest in info.sha256.values()):
                raise WeightsError(
                    f"{path} lists a file without a sha256 of 64 digits; write it again with export_pretrained."
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} is not a description of weights ({error}); write it again with export_pretrained."
            ) from error
        return info


def _check_kinds(raw: dict[str, Any]) -> None:
    """Refuse values that are not what :class:`ModelInfo` says they are.

    Raises:
        TypeError: the first such value, by its key.
    """
    for key, kinds in _KINDS.items():
        if key in raw and not isinstance(raw[key], kinds):
            raise TypeError(f"{key!r} is of type {type(raw[key]).__name__}")
    files = raw.get("files", {})
    for name, facts in files.items():
        if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
            raise TypeError(f"'files' lists {name!r} without a sha256")
        if not isinstance(facts.get("bytes", 0), int):
            raise TypeError(f"'files' lists {name!r} with a size that is no whole number")
    for key, values in (("heads", raw["heads"]), ("pictures", raw.get("pictures", {}).values())):
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"{key!r} holds something that is no text")
