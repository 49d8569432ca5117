"""What predicting needs of the machine: its device, its precision, its clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from cardiac_ct_fm.errors import UsageError


class Clock:
    """Seconds per stage.

    Args:
        now: seconds that have passed since any fixed moment.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.laps: dict[str, float] = {}
        self._now = now
        self._last = now()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under ``name``."""
        now = self._now()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 matrix products in full precision while predicting, whatever the caller has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fast_bf16(device: str) -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware: a GPU, or a CPU with AMX.

    Args:
        device: ``cpu`` or ``cuda``, as ``torch.device.type`` has it.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def choose_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: torch cannot compute there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # what torch raises differs from device to device
        raise UsageError(
            f"There is no device called {name!r} that torch can use here{_why_no_gpu(name)}; choose auto, cpu, cuda or "
            "cuda:N."
        ) from error
    return torch.device(name)


def _why_no_gpu(name: str) -> str:
    """What torch knows of the reason, where a GPU was asked for."""
    if not name.startswith("cuda"):
        return ""
    if torch.version.cuda is None:
        return f" (torch {torch.__version__} was built without CUDA; cardiac-ct-fm doctor says how to get another)"
    count = torch.cuda.device_count()
    return f" (torch sees {count} GPU{'s' * (count != 1)})"
