"""Tables and JSON of what was measured."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conductor import RowResult
from benchmarks.targets import AIM_OVER_RAY, CORE

PEERS = ("ray", "xoscar", "floor")


def number(value: float | None) -> str:
    """Three significant digits, thousands grouped."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{round(value, 2 - len(str(int(value))) + 1):,.0f}"
    return f"{value:.3g}"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown, with the columns lined up so that it reads well in a terminal too."""
    rows = [header, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows[1:])])


def core_table(results: Iterable[RowResult]) -> str:
    """One line per row and actorflow variant: median rates, medians of the per-round ratios (their range)."""
    lines = []
    for result in results:
        variants = [c for c in result.rates if c.startswith("actorflow")] or ["actorflow"]
        for variant in variants:
            suffix = variant.partition(":")[2]
            cells = [result.row.title + (f" ({suffix})" if suffix else ""), result.row.unit]
            cells += [number(result.median(c)) for c in (variant, *PEERS)]
            cells += [_ratio(result, variant, peer) for peer in PEERS]
            cells.append(_median_text(result.foreign_cpus))
            lines.append(cells)
    header = [
        "row",
        "unit",
        "actorflow",
        "Ray",
        "xoscar",
        "floor",
        "x Ray",
        "x xoscar",
        "% of floor",
        "others' CPU",
    ]
    return table(header, lines)


def _ratio(result: RowResult, column: str, peer: str) -> str:
    ratios = result.ratios(column, peer)
    if not ratios:
        return "-"
    median = result.ratio(column, peer)
    assert median is not None
    if peer == "floor":
        return f"{100 * median:.0f} ({100 * min(ratios):.0f}-{100 * max(ratios):.0f})"
    return f"{median:.1f} ({min(ratios):.1f}-{max(ratios):.1f})"


def _median_text(values: list[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f}" if values else "-"


def core_check(results: Iterable[RowResult]) -> str:
    """Met or not met, per target of the acceptance list, and for the aim."""
    by_row = {result.row.key: result for result in results}
    lines = []

    def compare(result: RowResult, column: str, peer: str, bound: float | None, what: str) -> None:
        if bound is None:
            return
        ratio = result.ratio(column, peer)
        verdict = "not measured" if ratio is None else "met" if ratio >= bound else "NOT MET"
        lines.append(
            [
                result.row.title,
                column,
                f"{what} {bound:g} x {peer}",
                "-" if ratio is None else f"{ratio:.2f}",
                verdict,
            ]
        )

    for target in CORE:
        if result := by_row.get(target.row):
            compare(result, target.column, "ray", target.over_ray, "must")
            compare(result, target.column, "xoscar", target.over_xoscar, "must")
            compare(result, target.column, "floor", target.of_floor, "must")
            compare(result, target.column, "floor", target.of_floor_aim, "aim")
    for result in by_row.values():
        compare(result, "actorflow", "ray", AIM_OVER_RAY, "aim")
    return table(["row", "column", "target", "ratio", "verdict"], lines)


def core_json(results: Iterable[RowResult]) -> list[dict[str, Any]]:
    """Everything: the samples, their medians, and the median ratios to the peers and the floor."""
    out = []
    for result in results:
        columns = list(result.rates)
        pairs = [(a, b) for a in columns for b in PEERS if a != b and b in columns]
        out.append(
            {
                "row": result.row.key,
                "title": result.row.title,
                "unit": result.row.unit,
                "floor": result.row.floor,
                "rates": result.rates,
                "medians": {column: result.median(column) for column in columns},
                "ratios": {f"{a}/{b}": result.ratio(a, b) for a, b in pairs},
                "foreign_cpus": result.foreign_cpus,
                "errors": result.errors,
            }
        )
    return out


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model[0] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
