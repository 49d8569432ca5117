"""torch.hub entries: ``torch.hub.load("org/cardiac-ct-fm", "cardiac_swin_tiny")``, or any weights by ``cardiac_ct_fm``.

Every public callable here is an entry that ``torch.hub.list`` shows, so imports have a leading underscore.
"""

from typing import Any as _Any

import cardiac_ct_fm as _ccf

dependencies = [
    "torch", "monai", "einops", "huggingface_hub", "filelock", "safetensors", "nibabel", "numpy", "scipy", "cc3d",
    "matplotlib",
]  # fmt: skip
"""What the entries import, or what they import does; the command line's typer and rich are not among it."""


def cardiac_ct_fm(weights: str = "cardiac_swin_tiny", **options: _Any) -> _Any:
    """A trained multi-head network for cardiac CT, in evaluation mode.

    Args:
        weights: a registered name, a model folder, or a Hub repository ``org/name[@revision]``.
        options: heads, device, dtype, revision, cache_dir, local_files_only, force_download, token, verify; see
            ``cardiac_ct_fm.from_pretrained``.

    Returns:
        A module; ``model(x)`` takes a normalised image (B, 1, X, Y, Z) and gives ``{head: logits}``.

    Example:
        >>> model = torch.hub.load("org/cardiac-ct-fm", "cardiac_ct_fm", heads=["heart", "hps"], trust_repo=True)
        >>> logits = model(torch.zeros(1, 1, 96, 96, 96))["hps"]
    """
    return _ccf.from_pretrained(weights, **options)


def cardiac_ct_fm_features(weights: str = "cardiac_swin_tiny", **options: _Any) -> _Any:
    """The trunk alone, for features; no head is read.

    Args:
        weights: as for ``cardiac_ct_fm``.
        options: as for ``cardiac_ct_fm``, without heads.

    Returns:
        A module with ``forward_features(x)`` → (B, C, X, Y, Z), ``forward_intermediates(x)`` → feature pyramid, and
        ``feature_info``, which describes it.

    Example:
        >>> trunk = torch.hub.load("org/cardiac-ct-fm", "cardiac_ct_fm_features", trust_repo=True)
        >>> pyramid = trunk.forward_intermediates(torch.zeros(1, 1, 96, 96, 96))
    """
    return _ccf.from_pretrained(weights, heads=[], **options)


def cardiac_ct_fm_predictor(weights: str = "cardiac_swin_tiny", **options: _Any) -> _Any:
    """From a CT file to named landmarks and segmentations in the patient's coordinates.

    Args:
        weights: as for ``cardiac_ct_fm``.
        options: see ``cardiac_ct_fm.Predictor``, for example ``device="auto"``.

    Returns:
        A callable; ``predictor("ct.nii.gz")`` gives a prediction with landmarks, label maps and measurements.

    Example:
        >>> predictor = torch.hub.load("org/cardiac-ct-fm", "cardiac_ct_fm_predictor", trust_repo=True)
        >>> predictor("ct.nii.gz").landmarks["RCC"].ras_mm
    """
    return _ccf.Predictor(weights, **options)


def cardiac_swin_tiny(**options: _Any) -> _Any:
    """The network that travels in the package: ``cardiac_ct_fm`` with these weights.

    Args:
        options: as for ``cardiac_ct_fm``.

    Example:
        >>> model = torch.hub.load("path/to/clone", "cardiac_swin_tiny", source="local")
    """
    return _ccf.from_pretrained("cardiac_swin_tiny", **options)


def cardiac_swin_small(**options: _Any) -> _Any:
    """The larger network of the repository's ``weights/``: ``cardiac_ct_fm`` with these weights.

    Args:
        options: as for ``cardiac_ct_fm``.

    Example:
        >>> model = torch.hub.load("path/to/clone", "cardiac_swin_small", source="local")
    """
    return _ccf.from_pretrained("cardiac_swin_small", **options)
