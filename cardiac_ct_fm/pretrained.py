"""How a model is saved and loaded: folders, Hub repositories, head files, published weights.

The base class of :class:`cardiac_ct_fm.model.CardiacCTModel`. It takes the Hub's verbs (``push_to_hub``, model card)
from :class:`huggingface_hub.ModelHubMixin` and replaces its loading: names and shapes must match exactly, the format
version is checked, and nothing is ever left random without a word.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from torch import nn

from cardiac_ct_fm.config import HeadConfig, ModelConfig
from cardiac_ct_fm.errors import UsageError, WeightsError
from cardiac_ct_fm.head_files import HeadFile
from cardiac_ct_fm.hub import HubOptions, push_folder
from cardiac_ct_fm.manifest import ModelInfo
from cardiac_ct_fm.model_card import model_card
from cardiac_ct_fm.model_folder import MADE, copy_folder, write_folder
from cardiac_ct_fm.runtime import choose_device
from cardiac_ct_fm.tensor_files import (
    MAX_SHARD_BYTES,
    check_match,
    digest,
    floats,
    head_of,
    read_tensors,
    tensor_names,
)
from cardiac_ct_fm.trunk import Backbone
from cardiac_ct_fm.unchanged import original_files
from cardiac_ct_fm.weights import WeightFiles, resolve, resolve_head

LICENSE = "apache-2.0"
"""SPDX identifier of the package, proposed for weights made with it."""

Model = TypeVar("Model", bound="PretrainedModel")


class PretrainedModel(nn.Module, ModelHubMixin):
    """Saving and loading for a network with ``backbone``, ``heads``, ``decoders``, ``refiners`` and a ``config``.

    Attributes:
        weight_files: where the weights came from, head files included; None when some are random.
    """

    config: ModelConfig
    backbone: Backbone
    heads: nn.ModuleDict
    decoders: nn.ModuleDict
    refiners: nn.ModuleDict
    weight_files: WeightFiles | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._set_config(config)

    def _set_config(self, config: ModelConfig) -> None:
        """Replace the configuration; the mixin keeps its own reference, taken at construction."""
        self.config = config
        self._hub_mixin_config = config

    def _install(self, head: HeadConfig) -> None:
        """Create the modules of a head."""
        raise NotImplementedError

    def trunk_sha256(self) -> str:
        """Identity of the trunk: sha256 over names, shapes and float32 values of its weights."""
        return digest(floats(self.backbone.state_dict()))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # fewer keywords than the mixin's **model_kwargs, on purpose
        cls: type[Model],
        source: str | Path,
        *,
        revision: str | None = None,
        heads: Sequence[str | Path] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        token: str | bool | None = None,
        verify: bool = True,
    ) -> Model:
        """A trained model in evaluation mode.

        Args:
            source: a registered name (:func:`cardiac_ct_fm.list_models`), a model folder, or ``org/name[@revision]``.
            revision: branch, tag or commit of a Hub repository.
            heads: names of the model's heads and head files (paths, or ``org/name/file.safetensors``); only these are
                read. All of the model's heads when None.
            device: where to put the model; ``auto`` takes a GPU where there is one.
            dtype: precision of the weights in memory.
            cache_dir: the Hub cache to use.
            local_files_only: never use the network.
            force_download: fetch again what is in the cache.
            token: access token for a private repository; never logged.
            verify: compare all files with their published sha256; where none is published, a warning says so.

        Raises:
            UsageError: an unknown source, head or device.
            WeightsError: files are missing, damaged, unsafe or do not fit; a head file belongs to another trunk.
        """
        options = HubOptions(revision, cache_dir, local_files_only, force_download, token)
        files = resolve(source, options, verify=verify)
        config = ModelConfig.load(files.config)
        chosen, head_files = _split_heads(config, heads, options)
        with torch.random.fork_rng(devices=[]):  # building a network draws random numbers that are overwritten below
            model = cls(config.with_heads(h for h in config.heads if h.name in chosen))
        _load_strict(model, files, config)
        model.weight_files = files
        for path in head_files:
            model.load_head(path)
        return model.to(device=choose_device(str(device)), dtype=dtype).eval()

    def save_pretrained(  # type: ignore[override]  # a model has one configuration and one card
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        max_shard_bytes: int | None = None,
        info: ModelInfo | None = None,
    ) -> None:
        """Write ``config.json``, safetensors, ``registry.json`` with their sha256, and a model card.

        All files are written to a temporary folder first and then moved, the configuration last. A model that is still
        what it was loaded from, to the bit, gives the same files again, with the figures and pictures of its card,
        unless one of the options is given; its own folder is left as it is. The card is always written from what
        ``registry.json`` and the configuration say.

        Args:
            save_directory: made where it does not exist; other files in it stay.
            dtype: precision on disk. When None that of the files for a model that is still what it was loaded from,
                float32 for any other. Loading gives float32 in any case, unless asked for another.
            max_shard_bytes: size of one file above which the weights are split, :data:`MAX_SHARD_BYTES` when None.
            info: licence, metrics and tag for ``registry.json``.

        Raises:
            OutputError: the folder cannot be written.
            WeightsError: a weight does not fit into ``dtype``.
        """
        weights = floats(self.state_dict())
        if dtype is None and max_shard_bytes is None and info is None:
            originals = original_files(self.config, weights, self.weight_files)
            if originals is not None:
                copy_folder(save_directory, self.config, *originals)
                return
        shard = MAX_SHARD_BYTES if max_shard_bytes is None else max_shard_bytes
        write_folder(save_directory, self.config, weights, info or self._info(), dtype or torch.float32, shard)

    def push_to_hub(  # type: ignore[override]  # what is pushed is what save_pretrained writes, nothing else
        self,
        repo_id: str,
        *,
        commit_message: str = "Weights by cardiac-ct-fm",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> str:
        """Save the model and commit the folder to a Hub repository, which is made where it does not exist.

        A model that is still what it was loaded from is pushed as it is: the same files, card and figures included. The
        weights and pictures of a model that was there before are deleted along with it; all other files stay.

        Args:
            repo_id: ``org/name``.
            commit_message: title of the commit.
            private: whether a new repository is private.
            token: access token; the one of ``hf auth login`` when None. It is never logged.
            branch: branch to commit to; ``main`` when None.
            dtype: precision of the files; see :meth:`save_pretrained`.

        Returns:
            The commit's address.

        Raises:
            OutputError: the Hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="cardiac-ct-fm-") as folder:
            self.save_pretrained(folder, dtype=dtype)
            return push_folder(folder, repo_id, commit_message, stale=MADE, private=private, token=token, branch=branch)

    def _info(self) -> ModelInfo:
        """What ``registry.json`` says of weights that are not published."""
        return ModelInfo(self.config.name, license=LICENSE)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card as an object of :mod:`huggingface_hub`."""
        facts = dataclasses.replace(self._info(), parameters=sum(p.numel() for p in self.parameters()))
        return ModelCard(model_card(self.config, facts))

    def save_head(self, name: str, path: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
        """Write one head as a file that :meth:`load_head` puts on the same trunk.

        Args:
            name: the head; its own decoder and its second look at points go along where it has them.
            path: a ``.safetensors`` file.
            dtype: precision on disk.

        Raises:
            UsageError: no such head, not a ``.safetensors`` path, or a trunk that is not in float32 (its sha256 would
                not be found again).
            OutputError: the file cannot be written.
        """
        head = self.config.head(name)
        if next(self.backbone.parameters()).dtype != torch.float32:
            raise UsageError("The trunk is not in float32; load it with dtype=torch.float32 to save a head for it.")
        tensors = {k: v for k, v in floats(self.state_dict()).items() if head_of(k) == name}
        looks = tuple(look.name for look in self.config.looks if name in look.heads)
        return HeadFile(head, looks, self.config.name, self.trunk_sha256(), tensors).write(path, dtype)

    def load_head(self, path: str | Path) -> str:
        """Put a head from a head file on this trunk.

        Returns:
            The head's name.

        Raises:
            WeightsError: not a head file, made for another trunk, or its tensors do not fit.
            UsageError: the model has a head of this name, or one with a class of the same name.
        """
        file = HeadFile.read(path, self.trunk_sha256())
        name = file.head.name
        if name in self.heads:
            raise UsageError(f"{self.config.name} has a head {name!r} already; leave it out with heads=[…] on loading.")
        config = self.config.with_head(file.head, file.looks)
        with torch.random.fork_rng(devices=[]):  # the new head's random numbers are overwritten below
            self._install(file.head)
        part = {k: v for k, v in floats(self.state_dict()).items() if head_of(k) == name}
        try:
            check_match(str(path), part, file.tensors)
        except WeightsError:
            self._uninstall(name)
            raise
        self.load_state_dict(file.tensors, strict=False)  # these keys alone; check_match compared them
        self._set_config(config)
        if self.weight_files is not None:
            self.weight_files = self.weight_files.with_head(name, Path(path))
        return name

    def _uninstall(self, name: str) -> None:
        """Take the modules of a head away again."""
        for modules in (self.heads, self.decoders, self.refiners):
            if name in modules:
                del modules[name]


def _split_heads(
    config: ModelConfig, heads: Sequence[str | Path] | None, options: HubOptions
) -> tuple[list[str], list[Path]]:
    """Names of the model's own heads to load, and paths of head files."""
    if heads is None:
        return [h.name for h in config.heads], []
    names: list[str] = []
    paths: list[Path] = []
    for head in heads:
        path = resolve_head(head, options)
        if path is None:
            names.append(config.head(str(head)).name)
        else:
            paths.append(path)
    return names, paths


def _load_strict(model: PretrainedModel, files: WeightFiles, config: ModelConfig) -> None:
    """Read the tensors of the model and its heads; every name in the files must belong to the configuration."""
    wanted = floats(model.state_dict())
    left_out = {h.name for h in config.heads} - set(model.heads)
    found = tensor_names(files.tensors)
    relevant = {name for name in found if head_of(name) not in left_out}
    tensors = read_tensors(files.tensors, lambda name: name in relevant)
    check_match(files.source, wanted, tensors)
    model.load_state_dict(tensors, strict=False)  # strict: check_match; what is left are index buffers, not weights
