"""A site: its scans, which of them are labelled, and which patients are never trained on.

A digital site is a range of patients of the cohort with the label counts of one of the paper's hospitals; a real one is
a folder with a MONAI data list. Both are only ever read at the site itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cardiac_ct_fm.anatomy import HEADS, head_spec
from cardiac_ct_fm.cohort import sites as cohort
from cardiac_ct_fm.cohort.case import Case
from cardiac_ct_fm.errors import ConfigError, DataError, UnknownNameError
from recipes.federated_distillation.scans import DigitalScan, FileScan, Scan
from recipes.federated_distillation.settings import POINT_TASKS, Settings

PAPER_SITES: dict[str, cohort.Site] = {f"site-{here.number}": here for here in cohort.SITES}
"""The eight digital hospitals: label counts of the paper's, scanners, populations and observers of the cohort's."""

CONFIG_FILE = "cardiac_site.json"
"""In a deployed site's ``local`` folder: ``{"data_list": …, "work": …}`` or ``{"digital": "site-2", "work": …}``."""


def labels_of_sites(settings: Settings) -> dict[str, frozenset[str]]:
    """Site → label types that it holds: the paper's sites, whose hearts are all segmented, or ``settings.holdings``.

    Raises:
        ConfigError: a holding is not ``name=heart,hps``.
        UnknownNameError: a label type that no head is made for.
    """
    known = {
        name: frozenset(["heart", *(t for t in POINT_TASKS if here.labelled[t])]) for name, here in PAPER_SITES.items()
    }
    declared = {}
    for text in settings.holdings:
        name, equals, heads = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"holdings {text!r} must be written as name=heart,hps.")
        declared[name] = frozenset(head_spec(h).name for h in heads.split(",") if h)
    return declared or known


@dataclass
class Site:
    """The scans of a site, split by patient.

    Attributes:
        name: the site.
        training: scans that may be trained on.
        held_out: scans for testing only.
    """

    name: str
    training: list[Scan]
    held_out: list[Scan]

    @property
    def labels(self) -> frozenset[str]:
        """Label types of any of its scans."""
        return frozenset().union(*(s.labels for s in [*self.training, *self.held_out]))


def digital_site(name: str, settings: Settings) -> Site:
    """A site of the digital cohort.

    The site holds ``settings.scans`` patients (not more than its model hospital), the first ``settings.labelled`` of
    them labelled, for each type that the hospital has labelled. Those who are held out are labelled completely, so
    that every network can be tested at sites that never labelled anything; nobody trains on them.

    Raises:
        UnknownNameError: there is no such site.
    """
    if name not in PAPER_SITES:
        raise UnknownNameError("digital site", name, sorted(PAPER_SITES))
    here = PAPER_SITES[name]
    cases: OrderedDict[int, Case] = OrderedDict()
    scans: list[Scan] = []
    for i in range(min(settings.scans, here.scans)):
        own = [t for t in POINT_TASKS if i < min(settings.labelled, here.labelled[t])]
        seed = here.number * cohort.SITE_SEEDS + i
        scans.append(DigitalScan(here.number, seed, frozenset(["heart", *own]), cases))
    site = split(name, scans, settings)
    for scan in site.held_out:
        scan.labels = frozenset(["heart", *POINT_TASKS])
    return site


def folder_site(name: str, data_list: Path, settings: Settings) -> Site:
    """A site of real scans.

    The data list is MONAI's: ``{"training": [{"image": …, "heart": …, "calc": …, "landmarks": …, "patient": …}, …]}``
    with paths relative to its folder. Everything but ``image`` may be missing; ``patient`` is the image's name where it
    is.

    Raises:
        DataError: no such file, not a data list, or a scan that is not there.
    """
    try:
        rows = json.loads(data_list.read_text(encoding="utf-8"))["training"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f'{data_list} is no data list ({error}); it must hold {{"training": [{{"image": …}}, …]}}.'
        ) from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{data_list} lists no scan under 'training'.")
    scans: list[Scan] = [_file_scan(row, data_list) for row in rows]
    return split(name, scans, settings)


def _file_scan(row: dict[str, str], data_list: Path) -> FileScan:
    """One row of a data list."""
    segmentations = [h for h, spec in HEADS.items() if spec.kind == "segmentation"]
    known = {"image", "landmarks", "patient", *segmentations}
    unknown = sorted(set(row) - known)
    if "image" not in row or unknown:
        raise DataError(
            f"{data_list}: {json.dumps(row)} must have 'image' and may have {', '.join(sorted(known - {'image'}))}"
            + (f"; it has {', '.join(unknown)}." if unknown else ".")
        )
    paths = {k: data_list.parent / v for k, v in row.items() if k != "patient"}
    missing = [str(p) for p in paths.values() if not p.exists()]
    if missing:
        raise DataError(f"{data_list} names {missing[0]}, which does not exist.")
    maps = {h: paths[h] for h in segmentations if h in paths}
    patient = row.get("patient", paths["image"].name.split(".")[0])
    return FileScan(patient, paths["image"], maps, paths.get("landmarks"))


def site_from_config(name: str, config: Path, settings: Settings) -> tuple[Site, Path]:
    """A deployed site as its own engineer has configured it; no job can point it elsewhere.

    Returns:
        The site, and the folder for its working files.

    Raises:
        DataError: the file is missing or says nothing usable.
    """
    try:
        raw = json.loads(config.read_text(encoding="utf-8"))
        work = Path(raw["work"])
        if "digital" in raw:
            site = digital_site(str(raw["digital"]), settings)
            return Site(name, site.training, site.held_out), work
        return folder_site(name, Path(raw["data_list"]), settings), work
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f'{config} must hold {{"data_list": "/data/site.json", "work": "/data/work"}} ({type(error).__name__}: '
            f"{error})."
        ) from error


def split(name: str, scans: Sequence[Scan], settings: Settings) -> Site:
    """Hold patients out, the same ones for ever: by a hash of seed and patient, per pattern of labels.

    A new scan never moves another patient's between the halves unless the counts change; all scans of a patient stay
    together.
    """
    patients: dict[str, list[Scan]] = {}
    for scan in scans:
        patients.setdefault(scan.patient, []).append(scan)
    strata: dict[tuple[str, ...], list[str]] = {}
    for patient, own in patients.items():
        pattern = tuple(sorted(frozenset().union(*(s.labels for s in own))))
        strata.setdefault(pattern, []).append(patient)
    held: set[str] = set()
    for members in strata.values():
        members.sort(key=lambda p: hashlib.sha256(f"{settings.seed}:{p}".encode()).digest())
        count = round(settings.test_ratio * len(members))
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        held.update(members[:count])
    training = [s for s in scans if s.patient not in held]
    return Site(name, training, [s for s in scans if s.patient in held])
