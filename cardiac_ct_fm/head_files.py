"""Head files: one head, its own decoder where it has one, and the sha256 of the trunk that it was trained on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from cardiac_ct_fm.config import HeadConfig, LookName
from cardiac_ct_fm.errors import UsageError, WeightsError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.tensor_files import read_metadata, read_tensors, write_tensors

HEAD_FORMAT = "cardiac-ct-fm head 1"
"""Kind and version of a head file, in its metadata."""


@dataclasses.dataclass(frozen=True)
class HeadFile:
    """What a head file holds.

    Attributes:
        head: name, kind and classes.
        looks: looks that it is read from.
        trunk: name of the model that it was trained on.
        trunk_sha256: identity of that model's trunk.
        tensors: weights by the names that they have in a model.
    """

    head: HeadConfig
    looks: tuple[LookName, ...]
    trunk: str
    trunk_sha256: str
    tensors: Mapping[str, Tensor]

    def write(self, path: str | Path, dtype: torch.dtype = torch.float32) -> Path:
        """Write the file, whole or not at all.

        Raises:
            UsageError: the path does not end with ``.safetensors``.
            OutputError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise UsageError(f"{path} must end with .safetensors; a head file is one.")
        metadata = {
            "cardiac_ct_fm": HEAD_FORMAT,
            "head": json.dumps(dataclasses.asdict(self.head)),
            "looks": json.dumps(self.looks),
            "trunk": self.trunk,
            "trunk_sha256": self.trunk_sha256,
        }
        with atomic_write(path) as temporary:
            write_tensors(temporary, self.tensors, dtype, metadata)
        return path

    @classmethod
    def read(cls, path: str | Path, trunk_sha256: str) -> HeadFile:
        """Read a head file for the trunk that has ``trunk_sha256``.

        Raises:
            WeightsError: not a head file of this version, or one for another trunk.
        """
        path = Path(path)
        metadata = read_metadata(path)
        if metadata.get("cardiac_ct_fm") != HEAD_FORMAT:
            raise WeightsError(f"{path} is not a head file of this version; head files are written by save_head.")
        try:
            raw = json.loads(metadata["head"])
            layers = raw["own_decoder"], raw.get("hidden", 0), raw.get("refine", 0)
            head = HeadConfig(raw["name"], raw["kind"], tuple(raw["classes"]), *layers)
            looks = tuple(look for look in get_args(LookName) if look in json.loads(metadata["looks"]))
            trunk, theirs = metadata["trunk"], metadata["trunk_sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} has a damaged description ({error}); fetch or train it again.") from error
        if theirs != trunk_sha256:
            raise WeightsError(
                f"{path} was trained on the trunk of {trunk} with sha256 {theirs[:12]}…; this trunk has "
                f"{trunk_sha256[:12]}…. Load the trunk that it was trained on, or train the head again."
            )
        return cls(head, looks, trunk, theirs, read_tensors([path]))
