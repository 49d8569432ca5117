"""Fine-tunes once in peace and once with SIGKILL: MODEL DATALIST FOLDER PARTS. Prints how often each part was killed.

A training runs in a fork of this process, which has imported everything, and kills itself at its n-th event. Events
are the steps that it reports and every file that it is about to put in place, so kills hit reading, learning and the
writing of features, states and results. The next fork goes on in the same folder and dies a little later.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

import cardiac_ct_fm as ccf
import cardiac_ct_fm.training.curves
import cardiac_ct_fm.training.schedule
from cardiac_ct_fm.training.finetune import finetune
from cardiac_ct_fm.training.settings import FinetuneSettings

MOST_KILLS = 200


def train(model: str, data: str, part: str, out: Path, last: int | None) -> None:
    """One run that dies at its event number ``last``."""
    events = 0

    def event(*_: object) -> None:
        nonlocal events
        events += 1
        if events == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(lambda name, _: event() if name == "os.rename" else None)
    torch.set_num_threads(1)
    settings = FinetuneSettings(train=part, epochs=2, patch=16, windows=2, batch_size=1, looks=("heart",))
    finetune(ccf.from_pretrained(model), data, "ventricle", out=out, settings=settings, progress=event)


def in_a_fork(*arguments: str, out: Path, last: int | None) -> bool:
    """Whether the run got to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(*arguments, out=out, last=last)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the training failed"
    return True


def main() -> None:
    model, data, folder, *parts = sys.argv[1:]
    cardiac_ct_fm.training.schedule.timm_parts()
    for part in parts:
        home = Path(folder) / part
        assert in_a_fork(model, data, part, out=home / "whole", last=None)
        print(kills_to_the_end(model, data, part, home / "killed"))


def kills_to_the_end(model: str, data: str, part: str, out: Path) -> int:
    for kills in range(MOST_KILLS):
        if in_a_fork(model, data, part, out=out, last=1 + 2 * kills):
            return kills
    raise SystemExit(f"{MOST_KILLS} kills, and still not at the end")


if __name__ == "__main__":
    main()
