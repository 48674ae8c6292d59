"""The figures of a run, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from actorflow.testing.chaos.judge import Verdict
from actorflow.testing.chaos.recovery import Recovery, percentile
from actorflow.testing.chaos.schedule import KILLS, Kind
from actorflow.testing.chaos.work import ABOUT, WORK

PROBLEMS_SHOWN = 20
CHARS_SHOWN = 600
SLOWEST_SHOWN = 3


def figures(verdict: Verdict, *, system: str, seed: int, command: str) -> dict[str, Any]:
    """All of it, as JSON has it."""
    return {
        "system": system,
        "seed": seed,
        "command": command,
        "seconds": round(verdict.seconds, 1),
        "faults": {kind.value: verdict.harms[kind] for kind in Kind if verdict.harms[kind]},
        "calls": dict(verdict.calls),
        "errors_allowed": {f"{kind}: {sort}": number for (kind, sort), number in sorted(verdict.errors.items())},
        "recovery": {name: _spread(found) for name, found in _by_kind(verdict.recoveries)},
        "slowest": slowest(verdict),
        "wrong": verdict.wrong,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "hung": verdict.hung,
        "left": verdict.left,
        "ok": not verdict.problems(),
    }


def text(verdict: Verdict, *, system: str, seed: int, command: str) -> str:
    """All of it, to be read."""
    problems = verdict.problems()
    lines = [f"{system}, seed {seed}, {verdict.seconds:.0f} s", ""]
    faults = ", ".join(f"{kind.value} {verdict.harms[kind]}" for kind in Kind if verdict.harms[kind])
    lines += [f"faults: {faults or 'none'}", ""]
    lines += _table(["work", "calls", "typed errors", ""], [_work(verdict, kind) for kind in WORK if verdict.calls[kind]])
    rows = [[name, *_row(_spread(found))] for name, found in _by_kind(verdict.recoveries)]
    lines += ["", *_table(["until what was hit went on", "times", "p50", "p99", "longest"], rows)] if rows else []
    lines += ["", *(f"slow: {words}" for words in slowest(verdict))] if rows else []
    found = {name: len(getattr(verdict, name)) for name in ("wrong", "lost", "duplicated", "hung", "left")}
    lines += ["", ", ".join(f"{name} {number}" for name, number in found.items())]
    lines += [f"  {problem[:CHARS_SHOWN]}" for problem in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(f"  and {len(problems) - PROBLEMS_SHOWN} more; --json has them all")
    return "\n".join([*lines, f"again: {command}"])


def slowest(verdict: Verdict) -> list[str]:
    """What took longest to go on, in words."""
    back = [(each.seconds, each) for each in verdict.recoveries if each.seconds is not None and not each.mixed]
    back.sort(key=lambda found: -found[0])
    return [
        f"{each.what} went on {seconds:.2f} s after the {each.harm.kind} of {each.harm.where} at {each.harm.at - verdict.began:.1f} s"
        for seconds, each in back[:SLOWEST_SHOWN]
    ]


def _work(verdict: Verdict, kind: str) -> list[str]:
    errors = sum(number for (work, _), number in verdict.errors.items() if work == kind)
    return [kind, str(verdict.calls[kind]), str(errors) if WORK[kind].errors or errors else "-", ABOUT[kind]]


def _by_kind(recoveries: Sequence[Recovery]) -> Iterable[tuple[str, list[float]]]:
    back = [(each, each.seconds) for each in recoveries if each.seconds is not None]
    alone = [(each, seconds) for each, seconds in back if not each.mixed]
    rows = {
        f"{kind.value}: {name}": [seconds for each, seconds in alone if each.harm.kind is kind and each.is_task is is_task]
        for kind in Kind
        for name, is_task in (("actors", False), ("tasks", True))
    }
    rows["all kills"] = [seconds for each, seconds in alone if each.harm.kind in KILLS]
    rows["hit by another fault as well"] = [seconds for each, seconds in back if each.mixed]
    return ((name, seconds) for name, seconds in rows.items() if seconds)


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "times": len(seconds),
        "p50_s": round(percentile(seconds, 0.5), 3),
        "p99_s": round(percentile(seconds, 0.99), 3),
        "max_s": round(max(seconds), 3),
    }


def _row(spread: dict[str, float]) -> list[str]:
    return [str(int(spread["times"])), *(f"{spread[name]:.2f} s" for name in ("p50_s", "p99_s", "max_s"))]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The first column and one without a head are text, the others numbers."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = zip(row, widths, head, strict=True)
        words = [cell.ljust(width) if name in ("", head[0]) else cell.rjust(width) for cell, width, name in cells]
        lines.append("  ".join(words).rstrip())
    return lines
