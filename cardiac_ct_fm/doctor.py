"""Is everything there that prediction needs? Versions, devices, memory and weights, each with what to do about it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from cardiac_ct_fm import __version__
from cardiac_ct_fm.errors import CardiacCTError, install_command

Verdict = Literal["ok", "note", "problem"]

REQUIRED = (
    "torch",
    "monai",
    "einops",
    "nibabel",
    "numpy",
    "scipy",
    "connected-components-3d",
    "safetensors",
    "huggingface-hub",
    "filelock",
    "matplotlib",
)
OPTIONAL = {
    "dicom": ("pydicom", "SimpleITK"),
    "train": ("timm", "tensorboard", "scikit-image"),
    "federated": ("nvflare", "timm", "tensorboard"),
    "onnx": ("onnx", "onnxscript"),
}
"""Distributions by extra, as in ``pyproject.toml``."""

FAST_CPU_FLAGS = ("avx2", "avx512f", "amx_tile", "avx512_bf16")
"""Instruction sets that change how fast the network runs on an x86 processor."""

LITTLE_MEMORY_GB = 4.0
"""Below this much available memory a warning is given: prediction of a clinical scan is meant to stay under 4 GiB."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        group: heading.
        name: what was looked at.
        text: what was found.
        verdict: ``ok``; ``note``: something optional is missing; ``problem``: prediction won't work so.
    """

    group: str
    name: str
    text: str
    verdict: Verdict = "ok"


def examine() -> Iterator[Finding]:
    """All findings, group by group."""
    yield from _software()
    yield from _hardware()
    yield from _weights()


def _software() -> Iterator[Finding]:
    """Versions of Python, this package and what it stands on."""
    yield Finding("Software", "cardiac-ct-fm", f"{__version__} in {Path(__file__).parent}")
    yield Finding("Software", "Python", f"{platform.python_version()} in {sys.prefix}, {platform.platform()}")
    for name in REQUIRED:
        version = _version(name)
        if version is None:
            yield Finding("Software", name, f"is not installed: pip install {name}", "problem")
        else:
            yield Finding("Software", name, version)
    for extra, names in OPTIONAL.items():
        missing = [name for name in names if _version(name) is None]
        found = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
        if missing:
            hint = f"{', '.join(missing)} missing; if you need it: {install_command(extra)}"
            yield Finding("Software", f"extra {extra}", f"{found}; {hint}" if found else hint, "note")
        else:
            yield Finding("Software", f"extra {extra}", found)


def _hardware() -> Iterator[Finding]:
    """Processor, memory, GPU."""
    from cardiac_ct_fm.process import memory_gb, usable_cpus

    model, flags = _processor()
    fast = "".join(f", {f}" for f in FAST_CPU_FLAGS if f in flags)
    yield Finding("Hardware", "CPU", f"{model}, {usable_cpus()} of {os.cpu_count()} cores usable{fast}")
    total, available = memory_gb()
    if available is not None:
        little = available < LITTLE_MEMORY_GB
        text = f"{available:.1f} of {total:.1f} GB available"
        hint = f"; large scans may not fit (below {LITTLE_MEMORY_GB:g} GB)" if little else ""
        yield Finding("Hardware", "memory", text + hint, "note" if little else "ok")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding("Hardware", "disk", f"{free:.1f} GB free in {Path.cwd()}")
    if _version("torch") is None:
        return
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield Finding("Hardware", "GPU", f"torch cannot be imported ({error}); install it again", "problem")
        return
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for the CPU"
        yield Finding("Hardware", "GPU", f"none that torch can use ({built}); the CPU is used", "note")
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding("Hardware", f"cuda:{index}", f"{facts.name}, {facts.total_memory / 1e9:.1f} GB")


def _weights() -> Iterator[Finding]:
    """Published weights and whether their files are what they should be."""
    from cardiac_ct_fm.registry import (
        MODELS_VARIABLE,
        absent_models,
        damaged_models,
        list_models,
        model_info,
        named_folders,
        whereabouts,
    )
    from cardiac_ct_fm.weights import resolve

    for name, error in damaged_models().items():
        yield Finding("Weights", name, str(error), "problem")
    names = list_models(pretrained=True)
    if not names:
        yield Finding("Weights", "trained", "none are here; give --model a folder or a Hub repository", "problem")
    for name in names:
        info = model_info(name)
        if info.repo_id is not None:
            yield Finding("Weights", name, f"on the Hub, {info.repo_id}@{info.revision}; fetched on first use")
            continue
        try:
            files = resolve(name)
        except CardiacCTError as refusal:
            yield Finding("Weights", name, str(refusal), "problem")
            continue
        size = sum(path.stat().st_size for path in files.tensors) / 1e6
        yield Finding("Weights", name, f"sha256 verified, {size:.1f} MB in {info.folder}")
    for name, info in absent_models().items():
        yield Finding("Weights", name, f"not here: {whereabouts(info)}", "note")
    for folder in named_folders():
        text, found = _further_folder(folder)
        yield Finding("Weights", MODELS_VARIABLE, text, "ok" if found else "note")


def _further_folder(folder: Path) -> tuple[str, bool]:
    """What lies in a folder that the environment names, and whether there are weights and nothing is wrong with any."""
    from cardiac_ct_fm.errors import WeightsError
    from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
    from cardiac_ct_fm.registry import weight_manifests

    hint = f"correct the variable or unset it; it names folders that hold NAME.TAG/{MANIFEST}"
    try:
        manifests, closed = weight_manifests(folder)
        if (folder / MANIFEST).is_file():
            above = folder.resolve().parent
            return f"{folder} is a model itself; let the variable name the folder above: {above}", False
    except FileNotFoundError:
        return f"{folder} does not exist: {hint}", False
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror}): {hint}", False
    if not manifests and not closed:
        return f"{folder} holds no weights: {hint}", False
    damaged = []
    for manifest in manifests:
        try:
            ModelInfo.from_manifest(manifest)
        except WeightsError:
            damaged.append(manifest.parent.name)
    parts = [f"{len(manifests) - len(damaged)} in {folder}"]
    if damaged:
        parts.append(f"damaged: {', '.join(damaged)}")
    if closed:
        parts.append("cannot be read: " + ", ".join(f"{p.name} ({e.strerror})" for p, e in closed.items()))
    return "; ".join(parts), not damaged and not closed


def _version(distribution: str) -> str | None:
    """Installed version, None when it is not there; nothing is imported."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[str, frozenset[str]]:
    """Name and instruction sets, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return facts.get("model name", platform.machine()), frozenset(facts.get("flags", "").split())
