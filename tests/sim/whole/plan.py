"""What happens in one run of the whole: a cluster, its drivers with their operations, and the faults. Data, and a text that people edit.

    plan seed=17 scheme=tcp heal=3.5 books=0
    node cpus=2 store=4MiB
    node cpus=1 store=2MiB
    driver outside=0 inline=1
      0.150 task number=7 retries=-1 ms=20
      0.200 call kind=keeper slot=0 number=3 ms=0
    faults
      0.310 kill-worker pick=0.43

Moments are seconds from the beginning of the programs. An operation needs no other one: what it calls is made when it is first used. So
any line may go, and what is left is a plan (`shrink.py`).

    PT-1  a plan that was printed and read again is the same plan
    PT-2  what is not understood is an error that names its line
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

Value = int | float | str
Args = dict[str, Value]


@dataclass(frozen=True)
class Step:
    """One operation of a driver, or one fault."""

    at: float
    verb: str
    args: Args = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([f"{self.at:.3f}", self.verb, *_words(self.args)])


@dataclass(frozen=True)
class Driver:
    """One program."""

    args: Args
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """See the module. `seed` decides what is not said here: delays, the order of processes, where bytes are cut."""

    seed: int
    args: Args
    nodes: tuple[Args, ...]
    drivers: tuple[Driver, ...]
    faults: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [" ".join(["plan", f"seed={self.seed}", *_words(self.args)])]
        lines += [" ".join(["node", *_words(node)]) for node in self.nodes]
        for driver in self.drivers:
            lines.append(" ".join(["driver", *_words(driver.args)]))
            lines += [f"  {step}" for step in driver.steps]
        lines.append("faults")
        lines += [f"  {fault}" for fault in self.faults]
        return "\n".join(lines) + "\n"

    @property
    def size(self) -> int:
        """How many lines may be left out."""
        return sum(len(driver.steps) for driver in self.drivers) + len(self.faults)


def _words(args: Args) -> Iterator[str]:
    return (f"{name}={value}" for name, value in args.items())


class PlanError(ValueError):
    """A text that is no plan."""


def parse(text: str, operations: Collection[str] | None = None, strikes: Collection[str] | None = None) -> Plan:
    """Read a plan; with the names of all operations and faults, others are refused. Raises PlanError (PT-2)."""
    head: Args | None = None
    nodes: list[Args] = []
    drivers: list[tuple[Args, list[Step]]] = []
    faults: list[Step] = []
    into: list[Step] | None = None
    known: Collection[str] | None = None
    for number, line in _lines(text):
        first, *words = line.split()
        if first == "plan":
            head = _args(words, number)
        elif first == "node":
            nodes.append(_args(words, number))
        elif first == "driver":
            into, known = [], operations
            drivers.append((_args(words, number), into))
        elif first == "faults":
            into, known = faults, strikes
        elif into is None:
            _refuse(number, f"{first!r} comes before the first driver")
        else:
            into.append(_step(first, words, number))
            if known is not None and into[-1].verb not in known:
                _refuse(number, f"{into[-1].verb!r} is not known there; these are: {', '.join(sorted(known))}")
    if head is None or "seed" not in head or not nodes:
        raise PlanError("a plan has a line `plan seed=...` and one node at least")
    seed = head.pop("seed")
    return Plan(int(seed), head, tuple(nodes), tuple(Driver(args, tuple(steps)) for args, steps in drivers), tuple(faults))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if said:
            yield number, said


def _step(at: str, words: list[str], number: int) -> Step:
    try:
        when = float(at)
    except ValueError:
        _refuse(number, f"{at!r} is no moment")
    if not words or "=" in words[0]:
        _refuse(number, "what is to happen is missing")
    return Step(when, words[0], _args(words[1:], number))


def _args(words: Iterable[str], number: int) -> Args:
    args: Args = {}
    for word in words:
        name, given, value = word.partition("=")
        if not given or not name:
            _refuse(number, f"{word!r} is not of the form name=value")
        args[name] = _value(value)
    return args


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _refuse(number: int, why: str) -> NoReturn:
    raise PlanError(f"line {number}: {why}")
