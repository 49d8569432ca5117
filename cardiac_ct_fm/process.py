"""What the command line does to its own process, and a library must not: allocator, threads, signals, log; its memory.

Each can be switched off by an environment variable, so that nothing happens behind a user's back.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import NoReturn

DEBUG_VARIABLE = "CARDIAC_CT_FM_DEBUG"
"""Set to 1: tracebacks, and the warnings of other libraries."""

ALLOCATOR_VARIABLE = "CARDIAC_CT_FM_ALLOCATOR"
"""Set to ``system``: the C library's allocator stays as it is."""

THREAD_VARIABLE = "OMP_NUM_THREADS"
"""torch's own variable; where it is set, it is obeyed."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameter numbers of glibc's ``mallopt`` (malloc.h)."""

_CGROUP = Path("/sys/fs/cgroup")
"""What a container may use (cgroup v2): ``cpu.max``, quota and period in microseconds; ``memory.*`` in bytes."""

_log = logging.getLogger("cardiac_ct_fm")


class _StderrHandler(logging.Handler):
    """Writes to what stderr is at the moment: a progress bar replaces it while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        sys.stderr.write(self.format(record) + "\n")


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def set_up_log(level: int = logging.INFO) -> None:
    """Log to stderr, plain sentences; other libraries' warnings only when debugging."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.handlers = [handler]
    _log.setLevel(logging.DEBUG if debugging() else level)
    _log.propagate = False
    if not debugging():
        warnings.simplefilter("ignore")
        for chatty in ("nibabel", "pydicom", "py.warnings", "huggingface_hub"):
            logging.getLogger(chatty).setLevel(logging.ERROR)


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of giving it back to the kernel after every layer.

    A network frees and asks for the same large blocks over and over; by default each is mapped anew and every page
    faults again. On 2 CPU cores a 96³ window of ``cardiac_swin_tiny`` took 4.0 CPU-s by default and 2.8 so, with
    1.23 instead of 1.13 GB at most (torch 2.13, one thread).

    Returns:
        Whether it was done; not where another C library is used or :data:`ALLOCATOR_VARIABLE` says no.
    """
    if os.environ.get(ALLOCATOR_VARIABLE, "") == "system" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def usable_cpus() -> int:
    """Cores that this process may use: its affinity and its container's quota count, not the machine's number."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return count


def set_threads(wanted: int | None) -> None:
    """Give torch ``wanted`` threads, or as many as there are usable cores.

    :data:`THREAD_VARIABLE` is obeyed.
    """
    import torch

    if wanted is not None:
        torch.set_num_threads(wanted)
    elif THREAD_VARIABLE not in os.environ:
        torch.set_num_threads(usable_cpus())


class Terminated(BaseException):
    """SIGTERM arrived; unwinds the stack like Ctrl-C, so that temporary files are removed."""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def unwind_on_sigterm() -> None:
    """Clean up on SIGTERM (a batch system's time limit, ``kill``) as on Ctrl-C."""
    if threading.current_thread() is threading.main_thread():  # others may not set signals
        signal.signal(signal.SIGTERM, _terminate)


def memory_gb() -> tuple[float | None, float | None]:
    """Memory in all and available, in GB; what a container may use counts where it is less. None where unknown.

    Cached files count as available, in a container too, because the kernel gives them up when memory is asked for.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    total, available = kib["MemTotal"] * 1024 / 1e9, kib["MemAvailable"] * 1024 / 1e9
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii")) / 1e9
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii")) / 1e9
        shares = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = (int(shares["inactive_file"]) + int(shares["active_file"])) / 1e9
    except (OSError, ValueError, KeyError):
        return total, available
    return min(total, limit), min(available, limit - used + cached)
