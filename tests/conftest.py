"""Fixtures shared by the tests: real scans, a model and what it predicts, small labelled patients, a trained head."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from command_line import run
from labelled_patients import write_patients
from small_scans import every_second_voxel, nifti
from tiny_finder import save_finder

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
def small_scan(demo_volume: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at twice its spacing, as the file ``small.nii.gz``; don't write beside it."""
    return nifti(tmp_path_factory.mktemp("scans") / "small.nii.gz", *every_second_voxel(demo_volume))


@pytest.fixture(scope="session")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that finds something in every scan; change nothing in it."""
    return save_finder(tmp_path_factory.mktemp("models") / "finder")


@pytest.fixture(scope="session")
def predicted(small_scan: Path, finder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of one prediction, which nobody changes, and what was printed."""
    out = tmp_path_factory.mktemp("out")
    answer = run("predict", small_scan, "-o", out, "-m", finder)
    assert answer.code == 0, answer.err
    return out / "small", answer.out


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
