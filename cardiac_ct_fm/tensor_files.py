"""safetensors in and out: whole models, shards, head files. Nothing here can run code from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cardiac_ct_fm.errors import WeightsError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.weights import INDEX_FILE, WEIGHTS_FILE

MAX_SHARD_BYTES = 16_000_000
"""Shards stay below this where no single tensor is larger: a git host takes them without large-file storage."""


HEADER_BYTES = 160
"""A tensor's entry in the header of a safetensors file, dtype, shape and place, is shorter than its name and this."""


def tensor_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Tensor name → file that holds it.

    Raises:
        WeightsError: a file is not safetensors, or two shards hold the same tensor.
    """
    where: dict[str, Path] = {}
    for path in paths:
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                if name in where:
                    raise WeightsError(
                        f"{path.name} and {where[name].name} both hold {name!r}; write the shards again."
                    )
                where[name] = path
    return where


def read_tensors(paths: Sequence[Path], wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """The tensors whose name is wanted, on the CPU; others are never read. Floats arrive as float32.

    Raises:
        WeightsError: a file is not safetensors, or holds a number that is not finite.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                if not wanted(name):
                    continue
                tensor: Tensor = file.get_tensor(name)
                tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
                if not torch.isfinite(tensors[name]).all():
                    raise WeightsError(
                        f"{path} holds numbers that are not finite in {name!r}; fetch or train it again."
                    )
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file.

    Raises:
        WeightsError: not a safetensors file.
    """
    with _opened(path) as file:
        metadata: dict[str, str] | None = file.metadata()
        return dict(metadata or {})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write one safetensors file; floats are stored as ``dtype``.

    Raises:
        WeightsError: a number does not fit into ``dtype``.
    """
    _save(_stored(tensors, dtype), path, metadata)


def write_model(
    folder: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[Path]:
    """Write ``model.safetensors``, or shards and their index where it would be larger than ``max_shard_bytes``.

    Returns:
        All files written, the index first where there is one.

    Raises:
        WeightsError: a number does not fit into ``dtype``.
    """
    stored = _stored(tensors, dtype)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in stored.items():
        size = tensor.nbytes + len(name) + HEADER_BYTES
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    if len(shards) == 1:
        _save(stored, folder / WEIGHTS_FILE)
        return [folder / WEIGHTS_FILE]
    weight_map: dict[str, str] = {}
    paths = [folder / INDEX_FILE]
    for number, shard in enumerate(shards, start=1):
        path = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save(shard, path)
        weight_map |= dict.fromkeys(shard, path.name)
        paths.append(path)
    total = sum(tensor.nbytes for tensor in stored.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    paths[0].write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return paths


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and float32 values, in the order of names: the identity of a trunk."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu", torch.float32).contiguous()
        total.update(f"{name}{tuple(tensor.shape)}".encode())
        total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights alone; attention's index tables follow from the window size and are not stored."""
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def head_of(name: str) -> str | None:
    """The head that a tensor of a model belongs to, None for the trunk."""
    root, _, rest = name.partition(".")
    return rest.partition(".")[0] if root in ("heads", "decoders", "refiners") else None


def check_match(source: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Same names, same shapes.

    Raises:
        WeightsError: anything missing, unknown or of another shape.
    """
    missing, unknown = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    shapes = [k for k in expected.keys() & given.keys() if expected[k].shape != given[k].shape]
    if missing or unknown or shapes:
        found = ", ".join(
            f"{len(keys)} {what} (first: {min(keys)})"
            for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
            if keys
        )
        raise WeightsError(f"The weights of {source} do not fit its configuration: {found}; restore the files.")


def _save(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write one file, with the permissions of any new file: safetensors' own are for one person alone."""
    with atomic_write(path) as temporary:
        save_file(tensors, str(temporary), metadata={"format": "pt", **(metadata or {})})


def _stored(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Contiguous CPU copies in the precision of the file."""
    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in tensors.items()
    }
    broken = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"{broken[0]!r} holds numbers that are not finite in {dtype}; the training went wrong.")
    return stored


def _opened(path: Path) -> safe_open:
    """An open safetensors file.

    Raises:
        WeightsError: it is not one.
    """
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); fetch or write it again.") from error
