"""The command line of chaos: what can be chosen, what is refused and why, and the command that repeats a run."""

from __future__ import annotations

import argparse
import shlex
from typing import Any, NamedTuple

from actorflow.testing.chaos.schedule import Rates
from actorflow.testing.chaos.systems import NAMES

PROGRAM = "python -m actorflow.testing.chaos"
SEEDS = 1 << 32

ABOUT = """\
Start a cluster of real nodes on this machine, let a program work on it that knows every right answer, and meanwhile kill, stop,
reset and cut off what is there, at random from a seed. In the end every call must have come to its value, or, where its options
allow that, to a typed error; no effect that was acknowledged may be gone, nothing may have run twice that must not, and nothing
may be left on the machine."""

MORE = f"""\
The first node has the program, and is never killed; its workers are, and the head beside it. A node that is killed is followed by another.
The seed decides what is harmed, and when; what is under way at that moment is up to the machine, so a run that is repeated is
alike, not the same.

examples:
  a minute of everything:
    {PROGRAM} --seed 7 --seconds 60
  resets alone, which nobody may notice:
    {PROGRAM} --kill-every 0 --stop-every 0 --partition-every 0 --reset-every 1
  only what Ray has a counterpart of, and the same program and schedule on Ray (after `make peers`):
    {PROGRAM} --seed 7 --seconds 300 --comparable
    .venv-peers/bin/{PROGRAM} --seed 7 --seconds 300 --system ray

The exit code is 0 when nothing was wrong, 1 when something was, and 2 when the run could not be made."""

HEAD_EVERY = 10


class Options(NamedTuple):
    """What was chosen."""

    seed: int | None
    seconds: float
    nodes: int
    cpus: int
    system: str
    comparable: bool
    rates: Rates
    back_s: float
    hang_s: float
    json: bool
    quiet: bool


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line. Says what is wrong with it, and exits with 2."""
    parser = _parser()
    given = parser.parse_args(arguments)
    rates = Rates(
        kill_s=given.kill_every, node_every=given.node_every, head_every=given.head_every, stop_s=given.stop_every,
        reset_s=given.reset_every, partition_s=given.partition_every, lasting_s=given.lasting,
    )  # fmt: skip
    options = Options(
        given.seed, given.seconds, given.nodes, given.cpus, given.system, given.comparable or given.system == "ray",
        rates, given.back_after, given.hang, given.json, given.quiet,
    )  # fmt: skip
    if why := _wrong(options):
        parser.error(why)
    if options.comparable:
        options = options._replace(rates=rates._replace(reset_s=0.0, partition_s=0.0, head_every=0))
    return options


def _wrong(options: Options) -> str:
    if options.nodes == 1 and not options.comparable and options.rates.partition_s:
        return "--nodes 1: there is no cable to cut; give 2 nodes or more, or --reset-every 0 --partition-every 0 --node-every 0"
    return ""


def repeats(options: Options, seed: int) -> str:
    """The command that makes such a run again."""
    defaults = _parser().parse_args([])
    rates = options.rates
    chosen: dict[str, Any] = {
        "seed": seed, "seconds": options.seconds, "nodes": options.nodes, "cpus": options.cpus, "system": options.system,
        "kill_every": rates.kill_s, "node_every": rates.node_every, "head_every": rates.head_every, "stop_every": rates.stop_s,
        "lasting": rates.lasting_s, "back_after": options.back_s, "hang": options.hang_s,
    }  # fmt: skip
    if not options.comparable:
        chosen |= {"reset_every": rates.reset_s, "partition_every": rates.partition_s}
    words = [
        word
        for name, value in chosen.items()
        if value != getattr(defaults, name)
        for word in (f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value))
    ]
    if options.comparable and options.system != "ray":
        words.append("--comparable")
    return f"{PROGRAM} {shlex.join(words)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seed", type=_seed, metavar="N", help="what everything follows from (default: any; it is printed)")
    add("--seconds", type=_seconds(1, 86_400), default=60.0, metavar="S", help="how long faults are made (default: 60)")
    add("--nodes", type=_count(1, 20), default=3, metavar="N", help="nodes (default: 3)")
    add("--cpus", type=_count(1, 64), default=2, metavar="N", help="CPUs that each node says it has (default: 2)")
    add("--system", choices=NAMES, default="actorflow", help="what the program runs on (default: actorflow)")
    add("--comparable", action="store_true", help="leave out what Ray has no counterpart of: checkpoints, resets and cuts")
    faults = parser.add_argument_group("faults", "Seconds between two faults of a kind, give or take the half; 0 for none.")
    add = faults.add_argument
    add("--kill-every", type=_seconds(0, 3600), default=3.0, metavar="S", help="SIGKILL (default: 3)")
    add("--node-every", type=_count(0, 1000), default=4, metavar="N", help="every so many kills are of a whole node (default: 4; 0: none)")
    add(
        "--head-every",
        type=_count(0, 1000),
        default=HEAD_EVERY,
        metavar="N",
        help="every so many kills are of the head, which comes back; 0: none. Not on Ray, whose head does not (default: %(default)s)",
    )
    add("--stop-every", type=_seconds(0, 3600), default=10.0, metavar="S", help="SIGSTOP, each third to a whole node (default: 10)")
    add("--reset-every", type=_seconds(0, 3600), default=8.0, metavar="S", help="all connections of a node are reset (default: 8)")
    add("--partition-every", type=_seconds(0, 3600), default=20.0, metavar="S", help="a node is cut off (default: 20)")
    add("--lasting", type=_seconds(0.1, 60), default=2.0, metavar="S",
        help="how long stops and cuts last (default: 2); each third of a node lasts 12, after which it is given up")  # fmt: skip
    add(
        "--back-after", type=_seconds(0, 600), default=1.0, metavar="S", help="another node joins so long after one was killed (default: 1)"
    )
    rest = parser.add_argument_group("the rest")
    add = rest.add_argument
    add("--hang", type=_seconds(20, 3600), default=60.0, metavar="S", help="a call that takes longer has hung (default: 60)")
    add("--json", action="store_true", help="print the figures as JSON")
    add("--quiet", action="store_true", help="do not say what happens as it happens")
    return parser


def _seed(word: str) -> int:
    number = _whole(word)
    if not 0 <= number < SEEDS:
        raise argparse.ArgumentTypeError(f"{number} is no seed: 0 to {SEEDS - 1} are")
    return number


def _count(least: int, most: int) -> Any:
    def read(word: str) -> int:
        number = _whole(word)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is out of bounds: {least} to {most}")
        return number

    return read


def _seconds(least: float, most: float) -> Any:
    def read(word: str) -> float:
        try:
            seconds = float(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{word!r} is no number of seconds") from None
        if not least <= seconds <= most:
            raise argparse.ArgumentTypeError(f"{word} s is out of bounds: {least:g} to {most:g} s")
        return seconds

    return read


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number") from None
