"""Many scans through one model: the next is read and the last is written while one is computed; failures don't stop it.

The command line uses it for one scan as well, so that one and many are treated alike. Imports no torch: a file that
cannot be used is refused before the network is loaded.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cardiac_ct_fm.errors import CardiacCTError, OutputError, UsageError, WeightsError
from cardiac_ct_fm.files import check_folder
from cardiac_ct_fm.result import COMPLETE_MARKER, Prediction
from cardiac_ct_fm.scan_list import Case
from cardiac_ct_fm.volume_io import Volume, load_volume

if TYPE_CHECKING:
    from cardiac_ct_fm.inference import Predictor, Progress, Quality

QUICK_REFUSAL_S = 0.5
"""So long the first scan is waited for before the network is loaded beside it; most bad files are known by then."""

EDITED_S = 10.0
"""A file of points that is younger than the folder's ``run.json``, which is written last, by more than this was edited
in place; a folder that was copied has its files' times seconds apart (a choice of this project)."""

_log = logging.getLogger(__name__)

Write = Callable[[Prediction, Path], None]
"""Writes one prediction into its folder, whole or not at all."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case: the scan.
        folder: its results.
        status: ``done``, ``skipped`` (results were there) or ``failed``.
        seconds: from its turn to the end of writing.
        prediction: what was found and written; None unless done.
        error: what went wrong; None unless failed.
    """

    case: Case
    folder: Path
    status: Literal["done", "skipped", "failed"]
    seconds: float = 0.0
    prediction: Prediction | None = None
    error: Exception | None = None


@dataclass
class BatchPredictor:
    """Settings that all scans of a batch share.

    Attributes:
        load: gives the predictor; called once, when the first scan has been read.
        write: measures and writes one prediction; runs beside the next scan's prediction.
        heads: see :meth:`Predictor.__call__`.
        quality: see :data:`cardiac_ct_fm.inference.Quality`.
        skip_existing: leave cases alone whose folder holds complete results, made with the same settings and weights.
        progress: called at the start of a case; gives the predictor's progress callback.
    """

    load: Callable[[], Predictor]
    write: Write
    heads: Sequence[str] | None = None
    quality: Quality = "standard"
    skip_existing: bool = False
    progress: Callable[[Case], Progress] | None = None
    _predictor: Predictor | None = None

    def __call__(self, cases: Sequence[Case], out: str | Path) -> Iterator[Outcome]:
        """Predict case after case; outcomes come in the order of the cases.

        Args:
            cases: see :func:`cardiac_ct_fm.scan_list.list_cases`.
            out: folder in which every case gets one of its name.

        Raises:
            OutputError: nothing can be written into ``out``; noticed before a model is loaded.
            UsageError: unknown head, quality or device, or results that would be left alone were made otherwise; this
                concerns all cases alike.
            WeightsError: the model cannot be loaded.
        """
        folders = [Path(out) / case.name for case in cases]
        there = [folder for folder in folders if self.skip_existing and _complete(folder)]
        todo = [i for i, folder in enumerate(folders) if folder not in there]
        self._check_alike(there)
        if todo:
            check_folder(out)
        following = {i: n for i, n in zip(todo, [*todo[1:], None], strict=False)}
        ahead: dict[int | None, Future[tuple[Volume, float]]] = {}
        pending: Future[Outcome] | None = None
        with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
            try:
                for i, case in enumerate(cases):
                    if i in following:
                        began = time.perf_counter()
                        for k in (i, following[i]):
                            if k is not None and k not in ahead:
                                ahead[k] = reader.submit(_read, cases[k])
                        found = self._predict(case, folders[i], ahead.pop(i), there)
                        outcome = writer.submit(self._finish, case, folders[i], found, began)
                        del found
                    else:
                        outcome = Future()
                        outcome.set_result(Outcome(case, folders[i], "skipped"))
                    if pending is not None:
                        yield pending.result()
                    pending = outcome
                if pending is not None:
                    yield pending.result()
            finally:
                for waiting in ahead.values():
                    waiting.cancel()

    def _check_alike(self, there: Sequence[Path]) -> None:
        """See that results that are left alone were made as this run makes the others, as far as that is known.

        Raises:
            UsageError: they were not.
        """
        model = None if self._predictor is None else self._predictor.model
        heads = self.heads or (None if model is None else list(model.heads))
        asked: dict[str, Any] = {"quality": self.quality, "heads": None if heads is None else sorted(heads)}
        if model is not None and model.weight_files is not None:
            asked["weights_sha256"] = {**model.weight_files.sha256, **model.weight_files.heads}
        for folder in there:
            made = _run_facts(folder)
            made |= {"heads": sorted(made["heads"])} if "heads" in made else {}
            for key, wish in asked.items():
                if wish is not None and made.get(key, wish) != wish:
                    what = "other weights" if key == "weights_sha256" else f"{key} {made[key]}, not {wish}"
                    raise UsageError(
                        f"{folder} holds results of {what}; give another folder, or leave out --skip-existing "
                        "(skip_existing=False) to predict all anew."
                    )

    def _predict(
        self, case: Case, folder: Path, reading: Future[tuple[Volume, float]], there: Sequence[Path]
    ) -> Prediction | Exception:
        """The prediction, or what went wrong with this scan."""
        try:
            check_folder(folder)
            _keep_corrections(folder)
            began = time.perf_counter()
            if self._predictor is None:
                wait([reading], QUICK_REFUSAL_S)
                if reading.done():
                    reading.result()
                self._predictor = self._loaded(reading)
                self._check_alike(there)
            volume, seconds = reading.result()
            waited = time.perf_counter() - began
            callback = self.progress(case) if self.progress else None
            prediction = self._predictor(volume, self.heads, self.quality, callback, measure=False)
            # The first scan is read while the model is loaded; later ones are read before their turn.
            model = {"model": round(max(0.0, waited - seconds), 3)}
            prediction.run["seconds"] = model | prediction.run["seconds"] | {"load": round(seconds, 3)}
            return prediction
        except (UsageError, WeightsError):
            raise
        except Exception as error:  # noqa: BLE001 - the other scans still run; this one's outcome reports it
            return _noted(case, error)

    def _loaded(self, reading: Future[tuple[Volume, float]]) -> Predictor:
        """The predictor; where neither the scan nor the model can be used, the scan's error is the one raised."""
        try:
            return self.load()
        except CardiacCTError:
            reading.result()
            raise

    def _finish(self, case: Case, folder: Path, found: Prediction | Exception, began: float) -> Outcome:
        """Write the prediction and say what became of the case."""
        if isinstance(found, Prediction):
            try:
                before = _complete(folder)
                self.write(found, folder)
                if before:
                    _log.info("The earlier results in %s were replaced.", folder)
                return Outcome(case, folder, "done", time.perf_counter() - began, found)
            except Exception as error:  # noqa: BLE001 - the other scans still run; this one's outcome reports it
                found = _noted(case, error)
        return Outcome(case, folder, "failed", time.perf_counter() - began, error=found)


def _read(case: Case) -> tuple[Volume, float]:
    """A case's scan, checked, and the seconds that took."""
    began = time.perf_counter()
    volume = load_volume(case.source, case.series)
    return volume, time.perf_counter() - began


def _complete(folder: Path) -> bool:
    """Whether a folder holds results that were written to the end, and still has what a table is made of."""
    return all((folder / name).is_file() for name in (COMPLETE_MARKER, "measurements.json"))


def _run_facts(folder: Path) -> dict[str, Any]:
    """What a folder's ``run.json`` says; nothing where there is none or it is damaged."""
    try:
        facts = json.loads((folder / COMPLETE_MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _keep_corrections(folder: Path) -> None:
    """See that no points are lost that a person has corrected.

    Raises:
        OutputError: the folder holds such points.
    """
    marker = folder / COMPLETE_MARKER
    if not marker.is_file():
        return
    points = [folder / name for name in ("landmarks.json", "landmarks.mrk.json", "landmarks.mps")]
    written = marker.stat().st_mtime
    edited = [file.name for file in points if file.is_file() and file.stat().st_mtime > written + EDITED_S]
    if edited or "landmarks" in _run_facts(folder).get("measured", {}):
        what = f"{edited[0]} was edited there" if edited else "its measurements are made with them"
        raise OutputError(
            f"{folder} holds points that a person has corrected ({what}), which a prediction would replace; predict "
            "into another folder, or move this one away."
        )


def _noted(case: Case, error: Exception) -> Exception:
    """The error; one that was not foreseen leaves its traceback in the debug log."""
    if not isinstance(error, CardiacCTError):
        _log.debug("Unexpected error in %s", case.source, exc_info=error)
    return error
