"""The bar of a prediction runs from start to end without standing still or going back, whatever looks a model takes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from cardiac_ct_fm.config import LookConfig
from cardiac_ct_fm.progress import ScanProgress
from cardiac_ct_fm.scan_list import Case

LOOKS = (
    LookConfig("locate", 4.0, 32, ("heart",)),
    LookConfig("heart", 2.0, 32, ("heart", "hps")),
    LookConfig("root", 1.0, 32, ("hps",)),
)
DETAIL = LookConfig("detail", 1.0, 32, ("coronaries",))


@pytest.mark.parametrize(
    ("quality", "looks", "heads", "taken"),
    [
        ("fast", (*LOOKS, DETAIL), None, ["locate", "heart"]),
        ("standard", LOOKS, None, ["locate", "heart", "root"]),
        ("standard", (*LOOKS, DETAIL), None, ["locate", "heart", "root", "detail"]),
        ("full", (*LOOKS, DETAIL), ["hps"], ["locate", "heart", "root"]),
        ("standard", (*LOOKS, DETAIL), ["coronaries"], ["locate", "heart", "detail"]),
    ],
)
def test_every_look_that_is_taken_has_the_same_share_of_the_bar(
    quality: str, looks: tuple[LookConfig, ...], heads: list[str] | None, taken: list[str]
) -> None:
    with ScanProgress(1, quality, silent=True) as progress:
        step = progress.start(Case("scan", Path("scan.nii.gz")))
        progress.expect(looks, heads)
        (task,) = progress._bar.tasks
        seen = [task.completed]
        for look in taken:
            for done in (1, 2):
                step(look, done, 2)
                seen.append(task.completed)
        assert "2 of 2" in task.description
    steps = [after - before for before, after in pairwise(seen)]
    assert steps[:-1] == pytest.approx([0.5 / len(taken)] * (2 * len(taken) - 1))
    assert seen[-1] == 0.99
