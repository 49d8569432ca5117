"""``cardiac-ct-fm models`` and ``info``: what can be loaded, and everything that is known about one of it."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardiac_ct_fm.commands import options

if TYPE_CHECKING:
    from rich.text import Text

    from cardiac_ct_fm.manifest import ModelInfo

BYTES_PER_MB = 1e6

DEFAULT_MARK = "The default: predict, finetune and evaluate use it without --model."
"""What the list says of the one model that :data:`cardiac_ct_fm.commands.options.DEFAULT_MODEL` means."""

_TITLES = {"runs": "trainings", "synthetic_share": "synthetic share"}
"""Keys of a model's provenance that ``info`` shows by another name."""


def models(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Names to list; * and ? as in a shell.", show_default=False)
    ] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Trained weights only.")] = False,
    json_output: options.Json = False,
) -> int:
    """List trained weights and architectures.

    What is listed as trained can be given to --model; architectures start from random weights. Weights that are
    published but not here are listed apart, with where they are. In JSON, "used_without_model" marks the one that
    predict, finetune and evaluate take without --model, "default" those that the name of their architecture alone
    means.
    """
    from rich.text import Text

    from cardiac_ct_fm.commands.results import airy_table, console, print_json
    from cardiac_ct_fm.registry import absent_models, architecture_info, list_models, model_info, whereabouts

    trained = [model_info(name) for name in list_models(pattern, pretrained=True)]
    absent = [info for name, info in absent_models().items() if fnmatchcase(name, pattern)]
    untrained = [] if pretrained else [architecture_info(name) for name in list_models(pattern)]
    default = _default_of_predict()
    if json_output:
        print_json([_row(info, default) for info in (*trained, *([] if pretrained else absent), *untrained)])
        return 0
    out = console()
    if trained:
        listing = airy_table("Weights", "Heads", ">Parameters", ">MB", "Licence", "")
        for info in trained:
            name = Text(info.full_name, style="bold")
            listing.add_row(
                name,
                " ".join(info.heads),
                f"{info.parameters / 1e6:.1f} M",
                f"{info.size_bytes / BYTES_PER_MB:.1f}",
                info.license or "",
                _told(info.description, info.full_name == default),
            )
        out.print(listing)
        out.print()
    for info in absent:
        told = Text.assemble(("  Not here: ", "yellow"), (info.full_name, "bold"), f", {whereabouts(info)}.\n")
        out.print(told, soft_wrap=True)
    if untrained:
        listing = airy_table("Architecture", "Heads", ">Parameters", "")
        for info in untrained:
            listing.add_row(
                Text(info.name, style="bold"),
                " ".join(info.heads),
                f"{info.parameters / 1e6:.1f} M",
                info.description,
            )
        out.print(listing)
    if not trained and not untrained and not absent:
        out.print(f"No name fits {pattern!r}.", markup=False)
    return 0


def _default_of_predict() -> str | None:
    """``name.tag`` that a command uses where --model is left out; None where that name means no weights that are here.

    ``ModelInfo.default`` is something else: which weights the name of their architecture means.
    """
    from cardiac_ct_fm.errors import UsageError, WeightsError
    from cardiac_ct_fm.registry import model_info

    try:
        meant = model_info(options.DEFAULT_MODEL)
    except (UsageError, WeightsError):  # several of this name, or damaged ones: predict says so, nothing is marked
        return None
    return meant.full_name if meant.pretrained else None


def _told(description: str, is_default: bool) -> Text:
    """A model's line in the list; the one that is used without being asked for says so below it."""
    from rich.text import Text

    line = Text(description)
    if is_default:
        line.append(f"\n{DEFAULT_MARK}" if description else DEFAULT_MARK, style="bold")
    return line


def info(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A name that models lists, or a model folder.")],
    json_output: options.Json = False,
) -> int:
    """Show heads, files with their sha256, measured figures, licence and provenance of a model."""
    from rich.table import Table
    from rich.text import Text

    from cardiac_ct_fm.commands.results import console, print_json
    from cardiac_ct_fm.manifest import MANIFEST, ModelInfo
    from cardiac_ct_fm.registry import model_info

    folder = Path(name)
    known = ModelInfo.from_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else model_info(name)
    if json_output:
        print_json(_row(known, _default_of_predict()))
        return 0
    out = console()
    out.print(Text.assemble("\n  ", (known.full_name, "bold"), f"  {_plain(known.description)}"), soft_wrap=True)
    for title, facts in _sections(known):
        listing = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
        listing.add_column(no_wrap=True, style="dim")
        listing.add_column(overflow="fold")
        for key, value in facts:
            listing.add_row(Text(key), Text(value))
        out.print(Text(f"\n  {title}", style="bold"))
        out.print(listing)
    return 0


def _row(info: ModelInfo, default: str | None) -> dict[str, Any]:
    """Plain JSON types; ``used_without_model`` marks ``default``, see :func:`_default_of_predict`."""
    row = dataclasses.asdict(info)
    folder = None if info.folder is None else str(info.folder)
    return {"full_name": info.full_name, "used_without_model": info.full_name == default, **row, "folder": folder}


def _sections(info: ModelInfo) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is known, in the order a reader needs it: what it cannot do, what was measured, then all else."""
    provenance = dict(info.provenance)
    limits = [(str(i), _plain(str(text))) for i, text in enumerate(provenance.pop("limitations", []), start=1)]
    measured = [
        (name, [(key, _inline(value)) for key, value in (group if isinstance(group, dict) else {"": group}).items()])
        for name, group in info.metrics.items()
    ]
    sections = [("Limitations", limits), *measured, ("Facts", _facts(info))]
    sections.append(("Provenance", [(_TITLES.get(key, key), _inline(value)) for key, value in provenance.items()]))
    return [(title, rows) for title, rows in sections if rows]


def _trained(info: ModelInfo) -> str:
    """Whether there are weights, and where they are when not here."""
    from cardiac_ct_fm.registry import whereabouts

    if info.pretrained:
        return "yes"
    return f"yes, but not here: {whereabouts(info)}" if info.tag else "no: random weights until trained"


def _facts(info: ModelInfo) -> list[tuple[str, str]]:
    """Size, licence and files; unknown things are left out."""
    rows = [
        ("trained", _trained(info)),
        ("heads", ", ".join(info.heads)),
        ("parameters", f"{info.parameters:,}"),
        ("licence", info.license or ""),
        ("repository", f"{info.repo_id}@{info.revision}" if info.repo_id else ""),
        ("folder", str(info.folder or "")),
    ]
    rows += [(name, f"{facts.get('bytes', 0):,} bytes, sha256 {facts['sha256']}") for name, facts in info.files.items()]
    return [(key, value) for key, value in rows if value]


def _inline(value: Any) -> str:
    """A nested value in one line: of records how many and the last one's commit, commands as they are typed."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_inline(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        if value and all(isinstance(v, dict) for v in value):
            last = f", the last at commit {value[-1]['commit']}" if "commit" in value[-1] else ""
            return f"{len(value)}{last}; --json tells all"
        return (" " if any(str(v).startswith("-") for v in value) else ", ").join(_inline(v) for v in value)
    return _plain(str(value))


def _plain(text: str) -> str:
    """Text of a model card without Markdown's marks around commands, the only marks that its figures use."""
    return text.replace("`", "")
