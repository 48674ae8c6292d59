"""What a run writes down, and from which it is judged afterwards: lines of JSON in files, one kind in each.

    CR-1  A line is written with one call of write(2) on a file that only grows, so it is there once that has returned, whoever is killed
          then, and lines of many processes do not mix.

All times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from actorflow.testing.chaos.schedule import Kind


class Call(NamedTuple):
    """One call of the program, as its caller saw it."""

    call: str
    """Its name, unique in the run."""
    kind: str
    """Which of the WORK (work.py)."""
    target: str
    """What was called: an actor by its name, or "task"."""
    began: float
    ended: float
    pid: int = 0
    """Of the process that answered; 0 with an error."""
    error: str = ""
    """Of which sort (systems.py); empty with a value."""
    text: str = ""
    """The error, in its own words."""


class Note(NamedTuple):
    """Written by code that runs in the cluster, when it begins: `what` is `run`, of a call, or `born`, of an actor."""

    at: float
    what: str
    target: str
    pid: int
    call: str = ""


class Harm(NamedTuple):
    """A fault that was done."""

    number: int
    kind: Kind
    at: float
    until: float
    """When it was over: for what lasts."""
    pids: tuple[int, ...]
    """The processes that it hit."""
    where: str


class Account(NamedTuple):
    """Of an actor whose state must survive: the effects that were acknowledged, in their order, and those that it has in the end."""

    target: str
    acknowledged: tuple[int, ...]
    seen: tuple[int, ...]


class Story(NamedTuple):
    """All that a run has written down."""

    calls: list[Call]
    notes: list[Note]
    harms: list[Harm]
    accounts: list[Account]
    wrong: list[str]
    hung: list[str]
    left: list[str]
    """What was still there afterwards."""
    began: float
    ended: float


class Book:
    """A file of lines, for one process that writes much."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **line: Any) -> None:
        """Add a line."""
        os.write(self._fd, json.dumps(line).encode() + b"\n")  # CR-1

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, which may not be there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def read_told(lines: Iterable[dict[str, Any]]) -> tuple[list[Call], list[Account], list[str], list[str]]:
    """What the program has told: its calls, accounts, what was wrong, and what hung."""
    calls, accounts, wrong, hung = [], [], [], []
    for line in lines:
        if "call" in line:
            calls.append(Call(**line))
        elif "acknowledged" in line:
            accounts.append(Account(line["target"], tuple(line["acknowledged"]), tuple(line["seen"])))
        elif "wrong" in line:
            wrong.append(line["wrong"])
        elif "hung" in line:
            hung.append(line["hung"])
    return calls, accounts, wrong, hung


def read_notes(lines: Iterable[dict[str, Any]]) -> list[Note]:
    """What code in the cluster has noted, in the order of arrival."""
    return [Note(**line) for line in lines]
