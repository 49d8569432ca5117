"""From a source (a registered name, a folder, a Hub repository) to verified local files. No torch.

Only safetensors and JSON are taken. Files with a known sha256 (all registered weights, and all folders written by
``save_pretrained``, which hold a ``registry.json``) are hashed on every load.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cardiac_ct_fm.errors import UsageError, WeightsError
from cardiac_ct_fm.hub import HubFetcher, HubOptions
from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
from cardiac_ct_fm.registry import known_names, list_models, model_info, whereabouts

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings under which pickled checkpoints travel."""

_log = logging.getLogger(__name__)

_HUB_MODEL = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[\w./-]+\.safetensors)")
_SHARD = re.compile(r"[^/\\:]+\.safetensors")
"""A name that leads out of a folder on no system."""


@dataclass(frozen=True)
class WeightFiles:
    """Local files of one model, ready to be read.

    Attributes:
        source: where they came from, in words for a report.
        config: ``config.json``.
        tensors: the model's own safetensors file, or its shards.
        sha256: file name → digest of these.
        verified: whether the model's own digests were compared with a published list.
        hub: fetches further files of the same commit, as these were fetched; None for a folder.
        heads: head → digest of its file, for heads from files of their own.
    """

    source: str
    config: Path
    tensors: tuple[Path, ...]
    sha256: dict[str, str]
    verified: bool
    hub: HubFetcher | None = field(default=None, repr=False, compare=False)
    heads: dict[str, str] = field(default_factory=dict)

    def with_head(self, head: str, path: Path) -> WeightFiles:
        """The same with the digest of a head's file, which has no published one but names the trunk it belongs to."""
        return replace(self, heads={**self.heads, head: sha256_of(path)})


def resolve(source: str | Path, hub: HubOptions | None = None, *, verify: bool = True) -> WeightFiles:
    """Find, fetch where needed, and verify the files of a model.

    Args:
        source: a registered name (``cardiac_swin_tiny`` or with its tag), a folder written by ``save_pretrained``, or a
            Hub repository ``org/name`` or ``org/name@revision``. A folder that is there comes first; the prefix
            ``registry:`` or ``hf:`` passes it by.
        hub: revision, cache and token for a Hub repository.
        verify: compare every file with its published sha256; where none is published, a warning says so.

    Raises:
        UsageError: the source means nothing that is known, or several weights of which none is the default.
        WeightsError: files are missing, damaged, not safe to load or cannot be fetched.
    """
    hub = hub or HubOptions()
    kind, name, revision = _classify(source)
    if revision and hub.revision not in (None, revision):
        raise UsageError(f"{source!s} asks for revision {revision!r} and revision={hub.revision!r}; give one of them.")
    if kind != "hub" and hub.revision:
        raise UsageError(f"revision={hub.revision!r} is for Hub repositories, which {source!s} is not.")
    if kind == "folder":
        return _open(Path(name), f"folder {name}", lambda file: _local(Path(name), file), verify)
    if kind == "hub":
        fetch = HubFetcher(name, replace(hub, revision=revision or hub.revision))
        return _of_commit(_open(None, f"Hub repository {name}", fetch, verify), fetch)
    info = model_info(name)
    if info.folder is None and info.tag is not None:
        raise WeightsError(f"{info.full_name} is not here: {whereabouts(info)}.")
    if info.folder is None:
        available = ", ".join(list_models(pretrained=True)) or "none"
        raise WeightsError(
            f"There are no trained weights for {name!r} here; trained: {available}. "
            f"create_model({name!r}) gives random weights, on purpose."
        )
    if info.repo_id is None:
        folder = info.folder
        return _open(folder, info.full_name, lambda file: _local(folder, file), verify, info)
    fetch = HubFetcher(info.repo_id, replace(hub, revision=info.revision))
    return _of_commit(_open(None, info.full_name, fetch, verify, info), fetch)


def resolve_head(source: str | Path, hub: HubOptions | None = None) -> Path | None:
    """The local path of a head file, or None when ``source`` is a head's name.

    Args:
        source: a ``.safetensors`` path, ``org/name[@revision]/file.safetensors`` on the Hub, or a head's name.
        hub: cache and token for the Hub.

    Raises:
        WeightsError: the file is missing, is a pickle, or cannot be fetched.
    """
    text = str(source)
    path = Path(source).expanduser()
    if path.is_file() or isinstance(source, Path):
        return _checked(path)
    if path.suffix in PICKLE_SUFFIXES:
        raise WeightsError(_pickle_text(path.name))
    match = _HUB_FILE.fullmatch(text.removeprefix("hf:"))
    if match is not None:
        options = replace(hub or HubOptions(), revision=match["revision"])
        fetched = HubFetcher(match["repo"], options)(match["file"])
        if fetched is None:
            raise WeightsError(f"The Hub repository {match['repo']} has no file {match['file']}.")
        return _checked(fetched)
    if path.suffix == ".safetensors":
        raise WeightsError(f"{source} does not exist; give the path of a head file, or org/name/file.safetensors.")
    return None


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _classify(source: str | Path) -> tuple[str, str, str | None]:
    """``(registry | folder | hub, name, revision)`` of a source; a folder may have the name of something else."""
    text = str(source)
    if isinstance(source, str):
        for prefix, kind in (("registry:", "registry"), ("hf:", "hub")):
            if text.startswith(prefix):
                name, _, revision = text.removeprefix(prefix).partition("@")
                return kind, name, revision or None
    path = Path(source).expanduser()
    if path.is_dir():
        registered = isinstance(source, str) and text in known_names()
        if not registered:
            return "folder", str(path), None
        if (path / CONFIG_FILE).is_file():
            _log.warning("The folder %s is taken; the registered model is 'registry:%s'.", path.resolve(), text)
            return "folder", str(path), None
    if path.is_file() or path.suffix in PICKLE_SUFFIXES:
        if path.suffix in PICKLE_SUFFIXES:
            raise WeightsError(_pickle_text(path.name))
        raise UsageError(f"{text} is a file; give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    match = _HUB_MODEL.fullmatch(text) if isinstance(source, str) and not text.startswith((".", "/", "~")) else None
    if match:
        return "hub", match["repo"], match["revision"]
    if os.sep in text or isinstance(source, Path):
        raise WeightsError(f"The folder {text} does not exist; give a model folder, a name or org/name.")
    return "registry", text, None


def _open(
    folder: Path | None,
    source: str,
    fetch: Callable[[str], Path | None],
    verify: bool,
    info: ModelInfo | None = None,
) -> WeightFiles:
    """Fetch all files of a model and compare them with the list that came with it or with the registry."""
    config = fetch(CONFIG_FILE)
    if config is None:
        raise WeightsError(_missing_text(source, CONFIG_FILE, folder))
    manifest = fetch(MANIFEST) if info is None else None
    published = info or (None if manifest is None else ModelInfo.from_manifest(manifest))
    if verify and published is None:
        _log.warning("%s has no %s that lists sha256: whether its files are whole is not verified.", source, MANIFEST)
    names = _tensor_names(source, folder, fetch)
    paths = {name: fetch(name) for name in (CONFIG_FILE, *names)}
    lost = [name for name, path in paths.items() if path is None]
    if lost:
        raise WeightsError(_missing_text(source, lost[0], folder))
    local = {name: _checked(path) for name, path in paths.items() if path is not None}
    digests = {name: sha256_of(path) for name, path in local.items()} if verify and published else {}
    for name, digest in digests.items():
        expected = published.sha256.get(name) if published else None
        if digest != expected:
            raise WeightsError(
                f"{local[name]} has sha256 {digest[:12]}…, but {source} lists {(expected or 'no such file')[:12]}…: "
                "the file is damaged or was changed. Fetch it again (force_download=True) or restore it."
            )
    tensors = {name: digests.get(name) or sha256_of(local[name]) for name in names}
    return WeightFiles(source, local[CONFIG_FILE], tuple(local[n] for n in names), tensors, verified=bool(digests))


def _of_commit(files: WeightFiles, fetch: HubFetcher) -> WeightFiles:
    """The files with the commit that they were fetched from."""
    return files if fetch.revision is None else replace(files, hub=fetch)


def _tensor_names(source: str, folder: Path | None, fetch: Callable[[str], Path | None]) -> list[str]:
    """Names of the safetensors files of a model: one, or the shards that an index lists."""
    if fetch(WEIGHTS_FILE) is not None:
        return [WEIGHTS_FILE]
    index = fetch(INDEX_FILE)
    if index is None:
        raise WeightsError(_missing_text(source, WEIGHTS_FILE, folder))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} is not an index of shards ({error}); fetch or write it again.") from error
    bad = [n for n in names if not (isinstance(n, str) and _SHARD.fullmatch(n))]
    if bad or not names:
        raise WeightsError(f"{index} lists {bad or 'no shards'}; shards are .safetensors files beside it.")
    return names


def _local(folder: Path, file: str) -> Path | None:
    """A file of a folder, None when it is not there."""
    path = folder / file
    return path if path.is_file() else None


def _checked(path: Path) -> Path:
    """The path of a file that is there and is no pickle."""
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; check the path.")
    with path.open("rb") as stream:
        start = stream.read(2)
    if path.suffix in PICKLE_SUFFIXES or (path.suffix == ".safetensors" and start in (b"PK", b"\x80\x02", b"\x80\x04")):
        raise WeightsError(_pickle_text(path.name))
    return path


def _missing_text(source: str, file: str, folder: Path | None) -> str:
    """One line for a missing file; a pickle beside it is named."""
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES) if folder else []
    if pickles and file == WEIGHTS_FILE:
        return _pickle_text(pickles[0])
    return (
        f"{source} has no {file}; a model is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as save_pretrained writes."
    )


def _pickle_text(name: str) -> str:
    return (
        f"{name} is a pickle, which can run code when it is opened, and is not loaded; turn it into safetensors with "
        f"`cardiac-ct-fm convert {name}`."
    )
