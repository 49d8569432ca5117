"""Fixtures shared by the tests: real scans, small labelled patients and a head that learned on them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from labelled_patients import write_patients

from cardiac_ct_fm.volume_io import Volume, load_volume

if TYPE_CHECKING:
    from cardiac_ct_fm.training.finetune import FinetuneResult

ROOT = Path(__file__).resolve().parent.parent
DEMO_SCAN = ROOT / "examples" / "data" / "ts-aorta-cta" / "ct_cropped.nii.gz"
DICOM_ARCHIVE = ROOT / "tests" / "data" / "crlm-1006-dicom" / "series.zip"


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Put torch's number of threads back, which the command line sets: a test must not depend on the one before."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The real CT angiography of the examples, 120×126×164 voxels of 1.5 mm."""
    return DEMO_SCAN


@pytest.fixture(scope="session")
def demo_volume() -> Volume:
    """The same, read."""
    return load_volume(DEMO_SCAN)


@pytest.fixture(scope="session")
def dicom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real DICOM series of 51 slices, unpacked; don't write into it."""
    folder = tmp_path_factory.mktemp("dicom") / "crlm-1006"
    with zipfile.ZipFile(DICOM_ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small labelled patients with their data list; add lists, change nothing."""
    return write_patients(tmp_path_factory.mktemp("patients")).parent


@pytest.fixture(scope="session")
def data_list(labelled: Path) -> Path:
    """Their data list."""
    return labelled / "datalist.json"


@pytest.fixture(scope="session")
def trained(data_list: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneResult, Path]:
    """A finished training of a head, and its folder."""
    from small_trunk import SETTINGS, trunk

    from cardiac_ct_fm.training.finetune import finetune

    out = tmp_path_factory.mktemp("out") / "ventricle"
    return finetune(trunk(), data_list, "ventricle", out=out, settings=SETTINGS), out


@pytest.fixture(scope="session")
def trunk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of ``small_trunk`` as a model folder."""
    from small_trunk import trunk

    folder = tmp_path_factory.mktemp("models") / "trunk"
    trunk().save_pretrained(folder)
    return folder
