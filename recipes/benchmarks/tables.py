"""Benchmarks as Markdown tables and one picture, from their JSON alone, so that they can be drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS = ("load", "locate", "heart", "root", "full", "decode", "measure", "write")
THEIRS = ("load", "load weights", "resample", "network", "decode", "write")


def predict_table(result: dict[str, Any]) -> str:
    """Stages, memory and arithmetic of every way, and how they compare with the original's."""
    ways: dict[str, Any] = result["ways"]
    peak, threads = result["machine"]["peak"], result["machine"]["peak"]["threads"]
    best = max(peak["matrix_product_gflops"], peak["convolution_gflops"]) / threads
    lines = [
        f"{threads} threads, torch {result['machine']['torch']}; peak {peak['matrix_product_gflops']} GFLOP/s (matrix "
        f"product), {peak['convolution_gflops']} GFLOP/s (3×3×3 convolution, 96 channels). "
        f"Scan {_by(result['scan']['shape'])} of {_by(result['scan']['spacing_mm'])} mm.",
        "",
        "| way | wall s | CPU s | peak MB | windows | TFLOP | network CPU s | of the peak | stages, CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way, row in ways.items():
        stages, network = row["stages"], row["network"]
        wall, cpu = (sum(s[k] for s in stages.values()) for k in ("wall_s", "cpu_s"))
        memory = max(s["peak_mb"] for s in stages.values())
        windows = " + ".join(f"{n} × {edge}³" for edge, n in network["windows"].items())
        note = "" if network["scaled_by"] == 1 else f" ({network['scaled_by']:g} × measured)"
        order = [s for s in (*OURS, *THEIRS) if s in stages]
        parts = ", ".join(f"{name} {stages[name]['cpu_s']:.1f}" for name in dict.fromkeys(order))
        lines.append(
            f"| {way} | {wall:.1f}{note} | {cpu:.1f} | {memory:.0f} | {windows} | {network['gflop'] / 1000:.2f} | "
            f"{network['cpu_s']:.1f} | {network['gflop_per_cpu_s'] / best:.0%} | {parts} |"
        )
    return "\n".join([*lines, "", *_ratios(ways)]) + "\n"


def _ratios(ways: dict[str, Any]) -> list[str]:
    """How many times less than the original's way, and than one multi-head pass."""
    lines = []
    for ours, other in (("base standard", "original"), ("tiny standard", "original"), ("base full", "one pass")):
        if ours in ways and other in ways:
            values = []
            for key, how in (("wall_s", sum), ("cpu_s", sum), ("peak_mb", max)):
                a, b = (how([s[key] for s in ways[w]["stages"].values()]) for w in (other, ours))
                values.append(a / b)
            lines.append(
                f"- `{ours}` against `{other}`: {values[0]:.1f} times less wall time, {values[1]:.1f} times less CPU "
                f"time, {values[2]:.1f} times less memory."
            )
    return lines


def scale_table(result: dict[str, Any]) -> str:
    """Time and memory per scan over number of slices, spacing and number of scans."""
    lines = [f"`{result['model']}`, `{result['quality']}`, {result['threads']} threads.", ""]
    for what, head in (("slices", "slices"), ("spacing", "voxels of, mm"), ("scans", "scans")):
        rows = result.get(what, [])
        if rows:
            lines += [f"| {head} | scan | wall s | CPU s | peak MB |", "|---|---|---|---|---|"]
            lines += [
                f"| {r['of']:g} | {_by(r['shape'])} | {r['wall_s']:.1f} | {r['cpu_s']:.1f} | {r['peak_mb']:.0f} |"
                for r in rows
            ]
            lines.append("")
    return "\n".join(lines)


def scale_picture(result: dict[str, Any], path: Path) -> None:
    """Time and memory over the number of slices and over the voxels' size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, (key, label) in zip(axes, (("slices", "slices"), ("spacing", "voxel size in mm")), strict=True):
        rows = sorted(result.get(key, []), key=lambda row: float(row["of"]))
        other = axis.twinx()
        for side, values, style, colour, text in (
            (axis, [row["cpu_s"] for row in rows], "o-", "tab:blue", "CPU seconds per scan"),
            (other, [row["peak_mb"] / 1000 for row in rows], "s--", "tab:red", "peak memory, GB"),
        ):
            side.plot([row["of"] for row in rows], values, style, color=colour)
            side.set_ylim(0, 1.15 * max(values, default=1.0))
            side.set_ylabel(text, color=colour)
            side.tick_params(axis="y", colors=colour)
        axis.set_xlabel(label)
    figure.suptitle(f"{result['model']}, {result['quality']}: what a scan costs")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by(values: list[float]) -> str:
    return "×".join(f"{v:g}" for v in values)
