"""What a stage costs: wall and CPU seconds, the highest memory while it ran; and what the machine can do at best."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.runtime import Clock

GEMM = 2048
"""Edge of the square matrices whose product tells the machine's peak."""

_PEAK_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Cost:
    """One stage.

    Attributes:
        wall_s: seconds on the clock.
        cpu_s: seconds of all threads together.
        peak_mb: highest resident memory of the process while it ran; of the whole run where the kernel cannot tell.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0

    def scaled(self, factor: float) -> Cost:
        """The cost of ``factor`` times as much work; memory stays."""
        return Cost(self.wall_s * factor, self.cpu_s * factor, self.peak_mb)

    def plus(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, max(self.peak_mb, other.peak_mb))

    def to_dict(self) -> dict[str, float]:
        """Rounded, for JSON."""
        return {key: round(value, 3) for key, value in asdict(self).items()}


class StageClock(Clock):
    """The predictor's clock that books CPU seconds and memory too.

    Args:
        now: seconds on the wall.
        spent: CPU seconds of all threads.

    Attributes:
        costs: per stage.
    """

    def __init__(
        self, now: Callable[[], float] = time.perf_counter, spent: Callable[[], float] = time.process_time
    ) -> None:
        super().__init__(now)
        self._spent = spent
        self.costs: dict[str, Cost] = {}
        self._wall, self._cpu = now(), spent()
        reset_peak()

    def lap(self, name: str) -> None:
        """Book what came since the last lap under ``name``."""
        super().lap(name)
        wall, cpu = self._now(), self._spent()
        cost = Cost(wall - self._wall, cpu - self._cpu, peak_mb())
        self.costs[name] = self.costs.get(name, Cost()).plus(cost)
        self._wall, self._cpu = wall, cpu
        reset_peak()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing meanwhile."""
        wall, cpu = self._now(), self._spent()
        try:
            yield
        finally:
            lost = self._now() - wall
            self._wall, self._last = self._wall + lost, self._last + lost
            self._cpu += self._spent() - cpu


def measured(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """The result of ``work`` and what it cost."""
    clock = StageClock()
    result = work()
    clock.lap("work")
    return result, clock.costs["work"]


def peak_mb() -> float:
    """Highest resident memory since :func:`reset_peak`, MB (of the whole run where the kernel does not count it)."""
    if _STATUS.exists():
        line = next(row for row in _STATUS.read_text(encoding="ascii").splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> None:
    """Count the highest memory anew from here on, where the kernel allows it."""
    if _PEAK_RESET.exists():
        _PEAK_RESET.write_text("5", encoding="ascii")


def gflops(model: CardiacCTModel, window: int, heads: list[str] | None = None) -> float:
    """Arithmetic of one window, 10⁹ floating-point operations; counted without computing."""
    ghost = CardiacCTModel(model.config).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ghost(torch.empty(1, 1, window, window, window, device="meta"), heads=heads)
    return float(counter.get_total_flops()) / 1e9


def machine_peak() -> dict[str, float]:
    """GFLOP/s of torch's float32 matrix product and of its best 3×3×3 convolution, all threads, the best of three."""
    a, b = torch.randn(GEMM, GEMM), torch.randn(GEMM, GEMM)
    with torch.inference_mode():
        product = _best(lambda: a @ b)
        image = torch.randn(1, 96, 24, 24, 24).contiguous(memory_format=torch.channels_last_3d)
        kernel = torch.randn(96, 96, 3, 3, 3)
        convolution = _best(lambda: torch.nn.functional.conv3d(image, kernel, padding=1))
    return {
        "threads": torch.get_num_threads(),
        "matrix_product_gflops": round(2 * GEMM**3 / product / 1e9, 1),
        "convolution_gflops": round(2 * 27 * 96 * 96 * 24**3 / convolution / 1e9, 1),
    }


def _best(work: Callable[[], Any]) -> float:
    """CPU seconds per thread of the fastest of three runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(3):
        began = time.process_time()
        work()
        seconds.append((time.process_time() - began) / torch.get_num_threads())
    return min(seconds)
