"""Bugs in protocol: frames that are counted wrongly between two connections of a link."""

from __future__ import annotations

from typing import Any

from actorflow._core.protocol import links
from tests.sim.planted.mutant import Mutant


def _without_the_first(original: Any) -> Any:
    def missing(self: Any, received: int) -> Any:
        frames = original(self, received)
        return frames[1:] if frames else frames

    return missing


def _once_more(original: Any) -> Any:
    def missing(self: Any, received: int) -> Any:
        return original(self, max(received - 1, self._first))

    return missing


def _only_what_is_said(original: Any) -> Any:
    def own(self: Any, message: Any) -> None:
        original(self, message)
        self.frames -= 1

    return own


MUTANTS = [
    Mutant(
        "link loses one", "RS-1: the first of what is missing is not sent again",
        links.Ledger, "missing", _without_the_first, "connections_that_break",
    ),
    Mutant("link repeats one", "RS-1: what arrived last is sent again", links.Ledger, "missing", _once_more, "connections_that_break"),
    Mutant(
        "link miscounts", "RS-1: a frame with word of the link is not counted",
        links.LinkSession, "_own", _only_what_is_said, "connections_that_break",
    ),
]
