"""Fixtures shared by the tests: the real demonstration scan and a real DICOM series."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cardiac_ct_fm.volume_io import Volume, load_volume

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
