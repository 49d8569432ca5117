"""The house rules, read from the source: directions of imports, sizes, docstrings, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cardiac_ct_fm as ccf

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cardiac_ct_fm"
MAX_LINES = 300

LEVELS = (
    {"errors"},
    {"backbone_config", "look_config"},
    {"anatomy", "files", "manifest", "process", "components", "cpu_layers", "swin_layers"},
    {"head_config", "refiner"},
    {"config"},
    {"registry"},
    {"geometry", "hub", "model_card"},
    {"landmark"},
    {"mitk_points"},
    {
        "volume_io",
        "dicom_files",
        "dicom_io",
        "image_checks",
        "landmark_io",
        "label_resampling",
        "weights",
        "trunk",
        "cpu_blocks",
    },
    {"tensor_files", "backbones", "preprocess", "label_io"},
    {"heads", "head_files", "model_folder", "unchanged", "result", "checkpoints"},
    {"pretrained", "decode", "runtime", "scan_list", "doctor"},
    {"model", "publish", "planning", "volumes"},
    {"looks", "convert", "exchange", "measurements", "readiness"},
    {"merging", "guidance", "refinement"},
    {"inference", "render2d", "cohort"},
    {"label_pictures", "landmark_pictures"},
    {"preview_frame"},
    {"preview", "report"},
    {"training", "outputs", "batch"},
    {"progress"},
    {"commands"},
    {"cli", "__main__"},
)
"""Rooms of the house, ground floor first: a module imports from its own floor and those below, never from above."""

NO_TORCH = (
    "cardiac_ct_fm",
    "cardiac_ct_fm.anatomy",
    "cardiac_ct_fm.batch",
    "cardiac_ct_fm.cohort.identity",
    "cardiac_ct_fm.commands.app",
    "cardiac_ct_fm.config",
    "cardiac_ct_fm.errors",
    "cardiac_ct_fm.hub",
    "cardiac_ct_fm.manifest",
    "cardiac_ct_fm.model_card",
    "cardiac_ct_fm.registry",
    "cardiac_ct_fm.volume_io",
    "cardiac_ct_fm.weights",
)

MODULES = sorted(p for p in PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "recipes").rglob("*.py")), ROOT / "hubconf.py"]


def room(path: Path) -> str:
    """The module or subpackage that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of all modules of this package or of ``recipes`` that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "cardiac_ct_fm" else set()
            )
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("cardiac_ct_fm", "recipes")}


def floor(name: str) -> int | None:
    """The floor of a room, None for the package's front door and names that are no module."""
    return next((number for number, rooms in enumerate(LEVELS) if name in rooms), None)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if room(p) != "__init__"], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_run_down_only(path: Path) -> None:
    own = floor(room(path))
    assert own is not None, f"{room(path)} has no floor; give it one in LEVELS"
    for name in imports(path):
        assert not name.startswith("recipes"), "the package never imports the recipes"
        target = name.split(".")[1] if "." in name else None
        above = floor(target) if target else None
        assert above is None or above <= own, f"{path.name} imports {name}, which lies above it"


def test_no_import_is_relative() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: write the full name"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_lives_there_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "the first docstring says what lives in the module"


def test_there_is_no_drawer_for_everything() -> None:
    assert not [p for p in SOURCES if p.stem in ("utils", "util", "helpers", "common", "misc")]


@pytest.mark.parametrize("module", NO_TORCH)
def test_importing_costs_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(m in sys.modules for m in ('torch', 'monai', 'scipy', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", ccf.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(ccf, name) is not None
    assert name in dir(ccf)


def test_other_names_cannot_be_had() -> None:
    with pytest.raises(AttributeError, match="no attribute 'does_not_exist'"):
        _ = ccf.does_not_exist
