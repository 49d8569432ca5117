"""The multi-head cardiac CT network: one trunk, a small head per label type, and what training needs of it."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cardiac_ct_fm.anatomy import HEADS, HeadKind
from cardiac_ct_fm.backbones import build_backbone
from cardiac_ct_fm.config import HeadConfig, LookName, ModelConfig
from cardiac_ct_fm.errors import ConfigError, UnknownNameError, UsageError
from cardiac_ct_fm.heads import build_head, copy_decoder, head_input
from cardiac_ct_fm.pretrained import LICENSE, PretrainedModel
from cardiac_ct_fm.refiner import PointRefiner
from cardiac_ct_fm.registry import architecture
from cardiac_ct_fm.trunk import Feature

NO_DECAY_SUFFIXES = ("relative_position_bias_table", "position_embeddings")
"""Parameters that weight decay leaves alone beside biases and norms, as Liu et al. 2021 (Swin) do."""


class CardiacCTModel(
    PretrainedModel,
    library_name="cardiac-ct-fm",
    license=LICENSE,
    tags=["cardiac-ct", "image-segmentation", "landmark-detection"],
    paper_url="https://doi.org/10.1038/s41746-025-01434-3",
):
    """A trunk and its heads; ``model(x)`` gives a dictionary of logits.

    Attributes:
        config: the settings that travel with the weights, heads included; kept up to date by :meth:`add_head`.
        backbone: the trunk.
        heads: the last layers by head name.
        decoders, refiners: private decoders and second looks at points (:mod:`cardiac_ct_fm.refinement`), by head.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.backbone = build_backbone(config.backbone)
        self.heads = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        self.refiners = nn.ModuleDict()
        self._frozen: set[str] = set()
        for head in config.heads:
            self._install(head)

    def forward(
        self, x: Tensor, heads: Sequence[str] | None = None, segmentation: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of the chosen heads, background first.

        Args:
            x: normalised image (B, 1, X, Y, Z) as :func:`cardiac_ct_fm.preprocess.look_tensor` gives it.
            heads: names of the heads to compute; all when None.
            segmentation: heart label map (B, 1, X, Y, Z) of integers 0…7, needed where ``condition_on_seg`` is set.

        Returns:
            ``{"hps": (B, 6, X, Y, Z), …}`` in the order of ``heads``.

        Raises:
            UsageError: the shape does not fit the trunk, a head is unknown, or a segmentation is missing or not wanted.
        """
        names = self._chosen(heads)
        skips = self.backbone.encode(self._input(x, segmentation))
        shared: list[Tensor] | None = None
        logits = {}
        for name in names:
            if name in self.decoders:
                maps = self.backbone.decode_maps(skips, list(self.decoders[name].children()))
            else:
                maps = shared = self.backbone.decode_maps(skips) if shared is None else shared
            logits[name] = self.heads[name](head_input(self.config.head(name), maps, x)).contiguous()
        return logits

    def forward_features(self, x: Tensor, segmentation: Tensor | None = None) -> Tensor:
        """The trunk's last decoder map (B, C, X, Y, Z), which the heads read.

        Raises:
            UsageError: see :meth:`forward`.
        """
        return self.decoder_maps(x, segmentation)[0]

    def decoder_maps(self, x: Tensor, segmentation: Tensor | None = None) -> list[Tensor]:
        """The trunk's decoder maps, fine to coarse, for deep supervision (:class:`cardiac_ct_fm.heads.CoarseHeads`).

        Raises:
            UsageError: see :meth:`forward`.
        """
        return self.backbone.decode_maps(self.backbone.encode(self._input(x, segmentation)))

    def forward_intermediates(self, x: Tensor, segmentation: Tensor | None = None) -> list[Tensor]:
        """The encoder's feature pyramid from stride 2 on; :attr:`feature_info` describes it.

        Raises:
            UsageError: see :meth:`forward`.
        """
        return self.backbone.forward_intermediates(self._input(x, segmentation))

    @property
    def feature_info(self) -> tuple[Feature, ...]:
        """Index, channels and stride of each map of :meth:`forward_intermediates`."""
        return self.backbone.feature_info

    @property
    def num_parameters(self) -> int:
        """Number of weights: trunk, heads and second looks."""
        return sum(p.numel() for p in self.parameters())

    def add_head(
        self,
        name: str,
        classes: Sequence[str],
        kind: HeadKind = "segmentation",
        *,
        own_decoder: bool = False,
        hidden: int = 0,
        looks: Sequence[LookName] | None = None,
    ) -> None:
        """Put a new head with random weights on the trunk.

        Args:
            name: a Python identifier that no head of this model has.
            classes: class names without the background.
            kind: ``segmentation`` or ``landmarks``.
            own_decoder: give the head a copy of the trunk's decoder, to be trained without touching other heads.
            hidden: channels of two hidden layers, 0 for none.
            looks: looks that prediction reads the head from; all but ``locate``, which is for ``heart``, when None.

        Raises:
            UsageError: the model has a head of this name, or the name, the classes (new ones, too) or a look do not do.
        """
        head = HeadConfig(name, kind, tuple(classes), own_decoder, hidden)
        if name in self.heads:
            raise UsageError(f"{self.config.name} has a head {name!r} already; choose another name.")
        config = self.config.with_head(head, looks)
        self._install(head)
        self.weight_files = None
        self._set_config(config)

    def freeze(self, *parts: str) -> None:
        """Exclude parts from training; they also stay in evaluation mode (no dropout) under :meth:`train`.

        Args:
            parts: ``trunk`` (all but the heads), ``encoder``, ``decoder`` (the trunk's two halves) or head names.

        Raises:
            UnknownNameError: no such part.
        """
        for part in parts:
            for module in self._modules_of(part):
                module.requires_grad_(False)
            self._frozen.add(part)
        self.train(self.training)

    def unfreeze(self, *parts: str) -> None:
        """Undo :meth:`freeze` for the same names of parts.

        Raises:
            UnknownNameError: no such part.
        """
        for part in parts:
            for module in self._modules_of(part):
                module.requires_grad_(True)
            self._frozen.discard(part)
        self.train(self.training)

    def train(self, mode: bool = True) -> "CardiacCTModel":
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            for module in self._modules_of(part):
                module.eval()
        return self

    def param_groups(self, lr: float, layer_decay: float = 1.0, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for a torch optimizer: learning rates that fall from the heads to the input, decay where it belongs.

        Args:
            lr: learning rate of the heads.
            layer_decay: factor per stage (:attr:`Backbone.stages`) towards the input; 1 keeps one rate.
            weight_decay: for weights; biases, norms and position biases have none.

        Returns:
            Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; frozen parameters are left out.

        Raises:
            ConfigError: a rate or a decay out of range.
        """
        if lr <= 0 or not 0 < layer_decay <= 1 or weight_decay < 0:
            wrong = f"lr={lr}, layer_decay={layer_decay}, weight_decay={weight_decay}"
            raise ConfigError(f"{wrong}: lr must be positive, layer_decay in (0, 1] and weight_decay not negative.")
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                plain = parameter.ndim <= 1 or name.endswith(NO_DECAY_SUFFIXES)
                groups.setdefault((self._depth(name), plain), []).append(parameter)
        top = len(self.backbone.stages)
        return [
            {
                "params": parameters,
                "lr": lr * layer_decay ** (top - depth),
                "weight_decay": 0.0 if plain else weight_decay,
                "name": f"stage{depth}{'_no_decay' if plain else ''}",
            }
            for (depth, plain), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]

    def _depth(self, parameter: str) -> int:
        """Stage of a parameter: 0 at the input, ``len(stages)`` for heads; a private decoder counts as decoder."""
        top = len(self.backbone.stages)
        if parameter.startswith(("decoders.", "heads.", "refiners.")):
            return top - parameter.startswith("decoders.")
        inner = parameter.removeprefix("backbone.")
        return next(i for i, prefixes in enumerate(self.backbone.stages) if inner.startswith(prefixes))

    def _modules_of(self, part: str) -> list[nn.Module]:
        """The modules that a part's name stands for."""
        if part == "trunk":
            return [self.backbone]
        if part == "decoder":
            return list(self.backbone.decoder_blocks().values())
        if part == "encoder":
            roots = {name.split(".")[0] for name in self.backbone.decoder_names}
            return [module for name, module in self.backbone.named_children() if name not in roots]
        if part in self.heads:
            return [modules[part] for modules in (self.heads, self.decoders, self.refiners) if part in modules]
        raise UnknownNameError("part", part, ["trunk", "encoder", "decoder", *self.heads])

    def _install(self, head: HeadConfig) -> None:
        """Create the modules of a head on the trunk's device, in its precision."""
        if head.name in ("trunk", "encoder", "decoder") or hasattr(nn.ModuleDict(), head.name):
            raise ConfigError(f"head name {head.name!r} is reserved; choose another, for example 'my_{head.name}'.")
        like = next(self.backbone.parameters())
        self.heads[head.name] = build_head(self.backbone.decoder_info, head).to(like)
        if head.own_decoder:
            self.decoders[head.name] = copy_decoder(self.backbone).requires_grad_(True)
        if head.refine:
            self.refiners[head.name] = PointRefiner(len(head.classes), head.refine).to(like)

    def _chosen(self, heads: Sequence[str] | None) -> list[str]:
        """Names of the heads to compute."""
        for name in heads or ():
            if name not in self.heads:
                raise UnknownNameError("head", name, list(self.heads))
        return list(self.heads) if heads is None else list(heads)

    def _input(self, x: Tensor, segmentation: Tensor | None) -> Tensor:
        """The image, with the one-hot heart segmentation behind it where the trunk is conditioned on it."""
        if not self.config.condition_on_seg:
            if segmentation is not None:
                raise UsageError(f"{self.config.name} is not conditioned on a segmentation; leave it out.")
            return x
        if segmentation is None or segmentation.shape != (len(x), 1, *x.shape[2:]):
            got = "none" if segmentation is None else tuple(segmentation.shape)
            raise UsageError(
                f"{self.config.name} is conditioned on the heart label map: pass segmentation of shape "
                f"{(len(x), 1, *x.shape[2:])}; got {got}."
            )
        labels = torch.arange(1, len(HEADS["heart"].classes) + 1, device=x.device).view(1, -1, 1, 1, 1)
        return torch.cat([x, (segmentation == labels).to(x.dtype)], dim=1)


def create_model(
    model: str | ModelConfig,
    *,
    heads: Iterable[str | HeadConfig] | None = None,
    condition_on_seg: bool = False,
    seed: int | None = None,
) -> CardiacCTModel:
    """A network with random weights, on purpose; trained ones come from :func:`from_pretrained`.

    Args:
        model: an architecture of :data:`cardiac_ct_fm.registry.ARCHITECTURES` or a whole configuration.
        heads: built-in head names or head configurations instead of the configuration's own; a head that it has not
            is read from all looks but ``locate``, which is for ``heart``.
        condition_on_seg: let the trunk see the one-hot heart segmentation beside the image.
        seed: makes the weights reproducible; the global random state is left as it was.

    Raises:
        UnknownNameError: no such architecture or head.
        ConfigError: the settings contradict each other.
    """
    config = architecture(model) if isinstance(model, str) else model
    if heads is not None:
        config = config.with_heads(HeadConfig.builtin(h) if isinstance(h, str) else h for h in heads)
    if condition_on_seg and not config.condition_on_seg:
        backbone = dataclasses.replace(config.backbone, in_channels=1 + len(HEADS["heart"].classes))
        config = config.replace(backbone=backbone, condition_on_seg=True)
    if seed is None:
        return CardiacCTModel(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CardiacCTModel(config)


from_pretrained = CardiacCTModel.from_pretrained
