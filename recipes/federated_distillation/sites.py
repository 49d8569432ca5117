"""A site: its scans, which of them are labelled, and which patients are never trained on.

A digital site is a range of patients of the cohort with the label counts of one of the paper's hospitals; a real one is
a folder with a data list. Both are only ever read at the site itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cardiac_ct_fm.anatomy import HEADS, head_spec
from cardiac_ct_fm.cohort import sites as cohort
from cardiac_ct_fm.cohort.case import Case
from cardiac_ct_fm.errors import CardiacCTError, ConfigError, DataError, UnknownNameError
from cardiac_ct_fm.files import write_json
from cardiac_ct_fm.training.data_list import Entry, read_data_list
from recipes.federated_distillation.scans import DigitalScan, FileScan, Scan
from recipes.federated_distillation.settings import POINT_TASKS, Settings

logger = logging.getLogger("federated_distillation.site")

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


def folder_site(name: str, data_list: Path, settings: Settings, work: Path) -> Site:
    """A site of real scans.

    Args:
        name: the site.
        data_list: the package's own (:mod:`cardiac_ct_fm.training.data_list`), of which ``training`` is taken.
        settings: share and seed of the split.
        work: the site's folder for working files, which remembers who is held out.

    Raises:
        DataError: no such file, not a data list, or a file that is not there.
        OutputError: the split cannot be written down.
    """
    entries = read_data_list(data_list).training
    others = sorted({head for entry in entries for head in entry.labels} - set(HEADS))
    if others:
        logger.warning(
            "%s: a federation has no head for %s; these labels are left alone.", data_list, ", ".join(others)
        )
    scans: list[Scan] = []
    for entry in entries:
        scan = _file_scan(entry, data_list.resolve().parent)
        try:
            _ = scan.labels
        except CardiacCTError as error:
            logger.warning("A scan is left out, its points cannot be read: %s", error)
        else:
            scans.append(scan)
    if not scans:
        raise DataError(f"{data_list} lists no scan under 'training' that can be read.")
    return split(name, scans, settings, work / f"split-{settings.seed}-{settings.test_ratio:g}.json")


def _file_scan(entry: Entry, folder: Path) -> FileScan:
    """A scan of a data list in ``folder``."""
    files = {h: entry.label_of(h, points=spec.kind == "landmarks", plain=False) for h, spec in HEADS.items()}
    maps = {h: file for h, file in files.items() if file is not None and HEADS[h].kind == "segmentation"}
    landmarks = {h: file for h, file in files.items() if file is not None and HEADS[h].kind == "landmarks"}
    return FileScan(entry.patient, entry.image, maps, landmarks, folder)


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
        return folder_site(name, Path(raw["data_list"]), settings, work), work
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f'{config} must hold {{"data_list": "/data/site.json", "work": "/data/work"}} ({type(error).__name__}: '
            f"{error})."
        ) from error


def split(name: str, scans: Sequence[Scan], settings: Settings, drawn: Path | None = None) -> Site:
    """Hold patients out by a hash of seed and patient, per pattern of labels; all scans of a patient stay together.

    Args:
        name: the site.
        scans: all that it has.
        settings: share and seed.
        drawn: file of who was drawn before. They stay where they are, whoever comes or goes and whatever is labelled
            since; only new patients are drawn. None for digital sites, whose patients the settings name.

    Raises:
        OutputError: ``drawn`` cannot be written.
    """
    patients: dict[str, list[Scan]] = {}
    for scan in scans:
        digest = hashlib.sha256(f"{settings.seed}:{scan.patient}".encode()).hexdigest()
        patients.setdefault(digest, []).append(scan)
    strata: dict[tuple[str, ...], list[str]] = {}
    for patient, own in sorted(patients.items()):
        pattern = tuple(sorted(frozenset().union(*(s.labels for s in own))))
        strata.setdefault(pattern, []).append(patient)
    before: dict[str, bool] = json.loads(drawn.read_text(encoding="utf-8")) if drawn and drawn.exists() else {}
    held = dict(before)
    for members in strata.values():
        count = round(settings.test_ratio * len(members))
        if len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        count -= sum(before.get(p, False) for p in members)
        held |= {p: i < count for i, p in enumerate(p for p in members if p not in before)}
    if drawn and held != before:
        write_json(drawn, held)
    site = Site(name, [], [])
    for patient, own in patients.items():
        (site.held_out if held[patient] else site.training).extend(own)
    return site
