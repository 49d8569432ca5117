"""A model that is still what it was loaded from: the files of its folder, to be saved or pushed as they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cardiac_ct_fm.config import ModelConfig
from cardiac_ct_fm.errors import ConfigError, WeightsError
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.tensor_files import read_tensors
from cardiac_ct_fm.weights import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, WeightFiles, sha256_of

_OWN = re.compile(r"config\.json|[\w.-]+\.safetensors(\.index\.json)?|pictures/[^/\\]+\.(png|jpg|jpeg)")
"""What ``registry.json`` may name: no path that leads out of the folder, so that nothing else is ever uploaded."""

_log = logging.getLogger(__name__)


def original_files(
    config: ModelConfig, weights: Mapping[str, Tensor], files: WeightFiles | None
) -> tuple[ModelInfo, dict[str, Path]] | None:
    """What a model came from, where the model is still the same to the bit; card and ``registry.json`` follow from it.

    A model from a Hub repository has its pictures fetched now, as it was loaded: with the same token, or without the
    network. What cannot be had is warned of.

    Args:
        config: the model's configuration as it is now.
        weights: its weights as they are now, by name.
        files: where they came from; None when some are random.

    Returns:
        What ``registry.json`` says, and name in the folder → file: pictures, weights, configuration. Each lies in the
        model's own folder, none behind a link that leads out of it. None where the model was changed or has a head
        from elsewhere, or where its files or the list of their sha256 are gone, cannot be read or do not agree.
    """
    if files is None or files.heads or not _is_same(config, weights, files):
        return None
    fetch = _fetcher(files)
    try:
        manifest = fetch(MANIFEST)
        if manifest is None:
            return None
        info = ModelInfo.from_manifest(manifest)
        there = {name: _own_file(name, fetch, files) for name in (*info.pictures, *info.files)}
        needed = {CONFIG_FILE, *(path.name for path in files.tensors)}
        whole = needed <= info.files.keys() and bool({WEIGHTS_FILE, INDEX_FILE} & info.files.keys())
        same = whole and all(sha256_of(there[name]) == digest for name, digest in info.sha256.items())
    except (WeightsError, OSError) as error:
        _log.warning("Card and weights are written anew, without the figures of the published card: %s", error)
        return None
    return (info, there) if same else None


def _own_file(name: str, fetch: Callable[[str], Path | None], files: WeightFiles) -> Path:
    """A file that ``registry.json`` names.

    Raises:
        WeightsError: it is no file of a model folder, is not there, or lies elsewhere.
        OSError: it cannot be read.
    """
    if not _OWN.fullmatch(name):
        raise WeightsError(f"The {MANIFEST} of {files.source} names {name!r}, which is no file of a model folder.")
    path = fetch(name)
    if path is None:
        raise WeightsError(f"{files.source} has no {name}.")
    folder = files.config.parent
    # <cache>/models--org--name/snapshots/<commit>/ links to blobs/ of the same repository
    cached = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    home = (folder.parents[1] if cached else folder).resolve()
    if not path.resolve().is_relative_to(home):
        raise WeightsError(f"{path} is a link that leads out of {home}.")
    with path.open("rb") as stream:
        stream.read(1)
    return path


def _is_same(config: ModelConfig, weights: Mapping[str, Tensor], files: WeightFiles) -> bool:
    """Whether configuration and weights are those of the files, which have not changed since they were loaded."""
    try:
        if any(sha256_of(path) != files.sha256[path.name] for path in files.tensors):
            return False
        if ModelConfig.load(files.config) != config:
            return False
        stored = read_tensors(files.tensors)
    except (ConfigError, WeightsError, OSError):
        return False  # damaged since, or gone; what is in memory is whole
    return stored.keys() == weights.keys() and all(
        torch.equal(tensor, weights[name].detach().to("cpu", torch.float32)) for name, tensor in stored.items()
    )


def _fetcher(files: WeightFiles) -> Callable[[str], Path | None]:
    """Gives further files of the folder, or of the same commit of the repository."""
    folder = files.config.parent
    return files.hub or (lambda name: folder / name if (folder / name).is_file() else None)
