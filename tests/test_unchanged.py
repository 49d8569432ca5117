"""Saving a loaded model: the same files where nothing was changed, new ones without old figures where something was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_models import files_of, image, published_model, small_model

import cardiac_ct_fm as ccf

FIGURE = "| Dice | 0.875 |"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return published_model(tmp_path / "weights")


@torch.no_grad()
def written_anew(model: ccf.CardiacCTModel, out: Path) -> bool:
    """Whether the saved files are those of the model as it is now, in float32 and without figures of another."""
    model.save_pretrained(out)
    again = ccf.from_pretrained(out)
    assert again.weight_files is not None and again.weight_files.verified
    assert all(torch.equal(a, b) for a, b in zip(again(image()).values(), model.float()(image()).values(), strict=True))
    return FIGURE not in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cardiac_swin_tiny", "cardiac_swin_small"])
def test_published_weights_that_are_loaded_and_saved_are_the_same_files(name: str, tmp_path: Path) -> None:
    info = ccf.model_info(name)
    ccf.from_pretrained(name).save_pretrained(tmp_path / "mine")
    saved = files_of(tmp_path / "mine")
    assert info.folder is not None
    assert saved == {path: (info.folder / path).read_bytes() for path in saved}
    assert {"README.md", "registry.json", *info.files, *info.pictures} == set(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_precision_in_memory_does_not_matter(dtype: torch.dtype, published: Path, tmp_path: Path) -> None:
    ccf.from_pretrained(published, dtype=dtype).save_pretrained(tmp_path / "mine")
    assert files_of(tmp_path / "mine") == files_of(published)


def test_a_model_can_be_saved_into_the_folder_that_it_came_from(published: Path) -> None:
    before = files_of(published)
    (published / "notes.txt").write_text("mine")
    ccf.from_pretrained(published).save_pretrained(published)
    assert files_of(published) == {**before, "notes.txt": b"mine"}


def test_its_own_folder_is_left_as_it_is(published: Path, tmp_path: Path) -> None:
    """Taking the files away and putting copies back would lose them in an interruption."""
    (tmp_path / "link").symlink_to(published)
    before = {path: path.stat() for path in (published, *published.rglob("*"))}
    ccf.from_pretrained(published).save_pretrained(published.parent / "." / published.name)
    ccf.from_pretrained(published).save_pretrained(tmp_path / "link")
    ccf.from_pretrained(tmp_path / "link").save_pretrained(published)
    now = {path: path.stat() for path in (published, *published.rglob("*"))}
    assert {path: (s.st_ino, s.st_mtime_ns) for path, s in now.items()} == {
        path: (s.st_ino, s.st_mtime_ns) for path, s in before.items()
    }


@pytest.mark.parametrize("obstacle", ["registry.json", "README.md"])
def test_saving_that_fails_takes_no_weights_away(obstacle: str, published: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    small_model(seed=1).save_pretrained(older, max_shard_bytes=100_000)
    (older / obstacle).unlink()
    (older / obstacle).mkdir()
    before = files_of(older)
    for model, options in ((ccf.from_pretrained(published), {}), (small_model(seed=2), {"dtype": torch.float16})):
        with pytest.raises(ccf.OutputError, match="cannot be written"):
            model.save_pretrained(older, **options)  # type: ignore[arg-type]
        after = files_of(older)
        kept = {name for name in before if name.endswith((".safetensors", ".index.json")) or name == "config.json"}
        assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}
    if obstacle == "registry.json":  # the first file that is moved: nothing has changed
        assert after == before


def test_an_older_model_in_the_folder_is_replaced(published: Path, tmp_path: Path) -> None:
    small_model(seed=1).save_pretrained(tmp_path / "mine", max_shard_bytes=100_000)
    ccf.from_pretrained(published).save_pretrained(tmp_path / "mine")
    assert files_of(tmp_path / "mine") == files_of(published)


def touch_a_weight(model: ccf.CardiacCTModel) -> None:
    with torch.no_grad():
        next(model.heads["hps"].parameters()).flatten()[0] += 1


def touch_the_provenance(model: ccf.CardiacCTModel) -> None:
    model._set_config(model.config.replace(provenance={"data": "others"}))


def put_a_head_on(model: ccf.CardiacCTModel) -> None:
    model.add_head("coronaries", ["Coronary"])


@pytest.mark.parametrize("change", [touch_a_weight, touch_the_provenance, put_a_head_on])
def test_a_changed_model_is_written_anew_without_the_figures(
    change: Callable[[ccf.CardiacCTModel], None], published: Path, tmp_path: Path
) -> None:
    model = ccf.from_pretrained(published)
    change(model)
    assert written_anew(model, tmp_path / "mine")


def test_a_model_with_another_choice_of_heads_is_written_anew(published: Path, tmp_path: Path) -> None:
    assert written_anew(ccf.from_pretrained(published, heads=["heart"]), tmp_path / "fewer")
    head = ccf.from_pretrained(published).save_head("hps", tmp_path / "hps.safetensors")
    assert written_anew(ccf.from_pretrained(published, heads=["heart", head]), tmp_path / "other")


def test_another_precision_or_size_of_shards_can_be_asked_for(published: Path, tmp_path: Path) -> None:
    model = ccf.from_pretrained(published)
    for number, options in enumerate(({"dtype": torch.float32}, {"max_shard_bytes": 100_000})):
        model.save_pretrained(tmp_path / str(number), **options)  # type: ignore[arg-type]
        assert FIGURE not in (tmp_path / str(number) / "README.md").read_text(encoding="utf-8")


def other_weights(folder: Path) -> None:
    small_model(seed=1).save_pretrained(folder)


def no_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def unreadable_weights(folder: Path) -> None:
    """As when a disk or a network share fails: reading gives an error, whoever reads."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/proc/self/mem")


def unreadable_picture(folder: Path) -> None:
    unreachable(folder / "pictures" / "coronaries.png")


def unreadable_list(folder: Path) -> None:
    unreachable(folder / "registry.json")


def unreachable(file: Path) -> None:
    """Even asking whether it is there gives an error."""
    file.unlink()
    file.symlink_to("x" * 300)


def pictures_of_another_kind(folder: Path) -> None:
    manifest = json.loads((folder / "registry.json").read_text())
    (folder / "registry.json").write_text(json.dumps({**manifest, "pictures": None}))


def half_a_configuration(folder: Path) -> None:
    (folder / "config.json").write_text('{"name":')


def a_card_of_before_checksums(folder: Path) -> None:
    (folder / "registry.json").unlink()


@pytest.mark.parametrize(
    "happens",
    [
        other_weights,
        no_files,
        unreadable_weights,
        unreadable_picture,
        unreadable_list,
        pictures_of_another_kind,
        half_a_configuration,
        a_card_of_before_checksums,
    ],
)
def test_what_is_in_memory_counts_when_its_folder_was_changed_since(
    happens: Callable[[Path], None], published: Path, tmp_path: Path
) -> None:
    model = ccf.from_pretrained(published)
    happens(published)
    assert written_anew(model, tmp_path / "mine")


def test_the_card_is_written_from_what_is_known(published: Path, tmp_path: Path) -> None:
    card = (published / "README.md").read_bytes()
    (published / "README.md").write_text("Mr Miller's aorta")
    ccf.from_pretrained(published).save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "README.md").read_bytes() == card


@pytest.mark.parametrize("file", ["pictures/coronaries.png", "model.safetensors", "config.json"])
def test_a_file_behind_a_link_that_leads_out_of_the_folder_is_not_taken(
    file: str, published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (published / file).rename(tmp_path / "elsewhere")
    (published / file).symlink_to(tmp_path / "elsewhere")
    assert written_anew(ccf.from_pretrained(published), tmp_path / "mine")
    assert not (tmp_path / "mine" / "pictures").exists()
    assert f"{published / file} is a link that leads out of {published}" in caplog.text


@pytest.mark.parametrize("name", ["../secret.png", "pictures/../../secret.png", "/secret.png", "pictures/notes.txt"])
def test_a_list_of_files_cannot_lead_out_of_the_folder(
    name: str, published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for secret in (published.parent / "secret.png", published / "pictures" / "notes.txt"):
        secret.write_text("secret")
    manifest = json.loads((published / "registry.json").read_text())
    (published / "registry.json").write_text(json.dumps({**manifest, "pictures": {name: "A picture"}}))
    assert written_anew(ccf.from_pretrained(published), tmp_path / "mine")
    assert b"secret" not in files_of(tmp_path / "mine").values()
    assert f"names '{name}', which is no file of a model folder" in caplog.text
