"""The core benchmark: Ray's `ray_perf` rows for actorflow, Ray, xoscar and the bare floor, interleaved.

    python -m benchmarks.core                          all rows, 5 rounds of 1 s samples: some 20 minutes
    python -m benchmarks.core --rows async --check     the rows whose key holds "async", and the targets
    python -m benchmarks.core --systems ray,floor --rounds 7 --seconds 2 --json core.json

The table gives medians of the rates and, where actorflow ran, medians of the per-round ratios with the lowest
and the highest round in brackets. "others' CPU" is what processes outside the measured system used meanwhile,
in cores: where it is high, the machine was busy with something else.

The n of the 1:n and n:n rows is `ray_perf`'s, half of the CPUs; the environment variable BENCH_SERVERS sets
another one for all systems.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

if not __package__:  # also as `python benchmarks/core.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.conductor import Conductor, RowResult, say
from benchmarks.rows import ROWS, SERVERS, Row

SYSTEMS = ("actorflow", "ray", "xoscar", "floor")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.core", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--rounds", type=int, default=5, help="samples per system and row (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a sample (default 1)")
    parser.add_argument(
        "--rows", default="", help="comma-separated keys, or parts of keys; --list shows them"
    )
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated (default: all)")
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument(
        "--check", action="store_true", help="compare with the targets of the acceptance list"
    )
    parser.add_argument("--list", action="store_true", help="show the rows and what their floors are")
    return parser.parse_args()


def chosen_rows(filters: str, known: tuple[Row, ...]) -> list[Row]:
    """A filter that is a key means that row; another one means every row whose key holds it."""
    wanted = [f for f in filters.split(",") if f]
    if not wanted:
        return list(known)
    keys = {row.key for row in known}
    rows = [r for r in known if any(r.key == f or (f not in keys and f in r.key) for f in wanted)]
    if not rows:
        raise SystemExit(f"no row matches {filters!r}; the keys are: {', '.join(sorted(keys))}")
    return rows


def main(known: tuple[Row, ...] = ROWS) -> int:
    args = arguments()
    if args.list:
        print(report.table(["key", "row", "floor"], [[r.key, r.title, r.floor] for r in known]))
        return 0
    systems = args.systems.split(",")
    if unknown := set(systems) - set(SYSTEMS):
        raise SystemExit(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated run ends its systems too
    results: list[RowResult] = []
    with Conductor(rounds=args.rounds, seconds=args.seconds, say=say) as conductor:
        for row in chosen_rows(args.rows, known):
            columns = [c for c in row.columns if c.partition(":")[0] in systems]
            result = conductor.run(row, columns)
            results.append(result)
            say(f"{row.key}: " + ", ".join(f"{c} {report.number(result.median(c))}" for c in result.rates))
            if args.json:  # after every row: a long run that is interrupted keeps what it has
                report.write_json(
                    args.json,
                    {
                        "servers": SERVERS,
                        "rounds": args.rounds,
                        "seconds": args.seconds,
                        "rows": report.core_json(results),
                    },
                )
    print(report.core_table(results))
    if args.check:
        print()
        print(report.core_check(results))
    return 1 if conductor.left_behind or any(result.errors for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
