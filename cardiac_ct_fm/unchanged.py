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
from cardiac_ct_fm.hub import HubFetcher, HubOptions
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.model_folder import CARD
from cardiac_ct_fm.tensor_files import read_tensors
from cardiac_ct_fm.weights import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, WeightFiles, sha256_of

_OWN = re.compile(r"config\.json|[\w.-]+\.safetensors(\.index\.json)?|pictures/[^/\\]+\.(png|jpg|jpeg)")
"""What ``registry.json`` may name: no path that leads out of the folder, so that nothing else is ever uploaded."""

_log = logging.getLogger(__name__)


def original_files(
    config: ModelConfig, weights: Mapping[str, Tensor], files: WeightFiles | None
) -> dict[str, Path] | None:
    """The whole model folder that a model came from, where the model is still the same to the bit.

    A model from a Hub repository has its card and pictures fetched now; what cannot be had is warned of.

    Args:
        config: the model's configuration as it is now.
        weights: its weights as they are now, by name.
        files: where they came from; None when some are random.

    Returns:
        Name in the folder → file: card, ``registry.json``, pictures, weights, the configuration last. None where the
        model was changed, or where its files or the list of their sha256 are no longer there or do not agree.
    """
    if files is None or not _is_same(config, weights, files):
        return None
    fetch = _fetcher(files)
    try:
        manifest = fetch(MANIFEST)
        if manifest is None:
            return None
        info = ModelInfo.from_manifest(manifest)
        listed = [*info.pictures, *sorted(info.files, key=lambda name: name == CONFIG_FILE)]
        strange = [name for name in listed if not _OWN.fullmatch(name)]
        if strange:
            raise WeightsError(f"{manifest} names {strange[0]!r}, which is no file of a model folder.")
        found = {CARD: fetch(CARD), MANIFEST: manifest, **{name: fetch(name) for name in listed}}
        lost = [name for name, path in found.items() if path is None]
        if lost:
            raise WeightsError(f"{files.source} has no {lost[0]}.")
    except WeightsError as error:
        _log.warning("Card and weights are written anew, without the figures of the published card: %s", error)
        return None
    there = {name: path for name, path in found.items() if path is not None}
    needed = {CONFIG_FILE, *(path.name for path in files.tensors)}
    whole = needed <= info.files.keys() and bool({WEIGHTS_FILE, INDEX_FILE} & info.files.keys())
    return there if whole and all(sha256_of(there[name]) == digest for name, digest in info.sha256.items()) else None


def _is_same(config: ModelConfig, weights: Mapping[str, Tensor], files: WeightFiles) -> bool:
    """Whether configuration and weights are those of the files, which have not changed since they were loaded."""
    if not all(path.is_file() for path in (files.config, *files.tensors)):
        return False
    if any(sha256_of(path) != files.sha256[path.name] for path in files.tensors):
        return False
    try:
        if ModelConfig.load(files.config) != config:
            return False
        stored = read_tensors(files.tensors)
    except (ConfigError, WeightsError):
        return False  # damaged since; what is in memory is whole
    return stored.keys() == weights.keys() and all(
        torch.equal(tensor, weights[name].detach().to("cpu", torch.float32)) for name, tensor in stored.items()
    )


def _fetcher(files: WeightFiles) -> Callable[[str], Path | None]:
    """Gives further files of the folder, or of the same commit of the repository."""
    folder = files.config.parent
    if files.repository is None:
        return lambda name: folder / name if (folder / name).is_file() else None
    repo_id, commit = files.repository
    cache = folder.parents[2]  # <cache>/models--org--name/snapshots/<commit>/config.json
    return HubFetcher(repo_id, HubOptions(revision=commit, cache_dir=cache))
