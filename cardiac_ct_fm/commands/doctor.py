"""``cardiac-ct-fm doctor``: what is installed, what it runs on, and whether the weights are whole."""

from __future__ import annotations

import dataclasses

from cardiac_ct_fm.commands import options

STYLES = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "bold red")}


def doctor(json_output: options.Json = False) -> int:
    """Check versions, devices, memory and weights. Paste the output into a bug report.

    Exit code 1 when something is missing that predict needs.
    """
    from rich.text import Text

    from cardiac_ct_fm.commands.results import airy_table, console, print_json
    from cardiac_ct_fm.doctor import examine

    findings = list(examine())
    problems = sum(f.verdict == "problem" for f in findings)
    if json_output:
        print_json([dataclasses.asdict(f) for f in findings])
        return 1 if problems else 0
    out = console()
    for group in dict.fromkeys(f.group for f in findings):
        listing = airy_table("", group, "")
        for finding in (f for f in findings if f.group == group):
            sign, style = STYLES[finding.verdict]
            listing.add_row(Text(sign, style=style), Text(finding.name, style="bold"), Text(finding.text))
        out.print(listing)
        out.print()
    summary = "Everything that predict needs is there."
    if problems:
        summary = f"{problems} problem{'s' if problems > 1 else ''}; see the lines marked {STYLES['problem'][0]}"
    out.print(Text(f"  {summary}", style="bold red" if problems else "bold green"))
    return 1 if problems else 0
