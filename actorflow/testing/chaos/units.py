"""What runs in the cluster: plain functions and classes, the same for every system. They note that they run.

Their notes are lines in one file that all processes of the machine add to (CR-1 in records.py), so no process has to be reached for it, and
what was noted stays when its writer is killed in the next moment. This module imports the standard library alone: it travels by value.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

FACTOR = 7
MODULUS = 251


def note(ledger: str, what: str, target: str, call: str = "") -> int:
    """Write down that something happens here and now; gives the process."""
    pid = os.getpid()
    line = json.dumps({"at": time.monotonic(), "what": what, "target": target, "pid": pid, "call": call})
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)
    return pid


def multiply(ledger: str, call: str, number: int, seconds: float) -> tuple[int, int]:
    """A task that takes a while."""
    pid = note(ledger, "run", "task", call)
    time.sleep(seconds)
    return number * FACTOR, pid


def add(ledger: str, call: str, first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    """A task that takes what two others gave."""
    pid = note(ledger, "run", "task", call)
    return first[0] + second[0], pid


def pattern(number: int, size: int) -> bytes:
    """Bytes that can be told from those of any other number."""
    return (bytes((number + place) % MODULUS for place in range(MODULUS)) * (size // MODULUS + 1))[:size]


def block(ledger: str, call: str, number: int, size: int) -> bytes:
    """A task with a large result."""
    note(ledger, "run", "task", call)
    return pattern(number, size)


def differs(ledger: str, call: str, number: int, data: bytes) -> tuple[int, int]:
    """A task with a large argument: at which place it is not what it must be, -1 for nowhere."""
    pid = note(ledger, "run", "task", call)
    wanted = pattern(number, len(data))
    if data == wanted:
        return -1, pid
    return next(place for place in range(len(data)) if data[place] != wanted[place]), pid


def count(ledger: str, call: str, number: int, items: int, size: int, seconds: float) -> Iterator[tuple[int, bytes, int]]:
    """A stream: the same items at every attempt."""
    pid = note(ledger, "run", "task", call)
    for item in range(items):
        time.sleep(seconds)
        yield item, pattern(number + item, size), pid


class Echo:
    """An actor without memory."""

    def __init__(self, ledger: str, name: str) -> None:
        self.ledger = ledger
        self.name = name
        note(ledger, "born", name)

    async def multiply(self, call: str, number: int) -> tuple[int, int]:
        return number * FACTOR, note(self.ledger, "run", self.name, call)


class Tally:
    """An actor with memory, and one life."""

    def __init__(self, ledger: str, name: str) -> None:
        self.ledger = ledger
        self.name = name
        self.calls = 0
        note(ledger, "born", name)

    async def next(self, call: str) -> tuple[int, int]:
        self.calls += 1
        return self.calls, note(self.ledger, "run", self.name, call)


class Kept:
    """An actor whose state survives its process: what it has acknowledged is there in its next life."""

    def __init__(self, ledger: str, name: str) -> None:
        self.ledger = ledger
        self.name = name
        self.seen: list[int] = []
        note(ledger, "born", name)

    def __checkpoint__(self) -> list[int]:
        return self.seen

    def __restore__(self, seen: list[int]) -> None:
        self.seen = seen

    async def keep(self, call: str, number: int) -> tuple[int, int]:
        self.seen.append(number)
        return len(self.seen), note(self.ledger, "run", self.name, call)

    async def all(self, call: str) -> tuple[list[int], int]:
        return self.seen, note(self.ledger, "run", self.name, call)
