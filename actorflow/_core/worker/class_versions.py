"""Which actor classes this process has defined anew: in a notebook, by running a cell again (SEMANTICS 23)."""

from __future__ import annotations

import logging

log = logging.getLogger("actorflow")

CLASSES_MAX = 1000
"""Versions that are remembered; of those before, nobody is warned."""


class ClassVersions:
    """The versions of actor classes that were made here, by their id, which is the digest of their code."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, str]] = {}
        self._newest: dict[tuple[str, str], str] = {}

    def made(self, cls: type, class_id: str) -> None:
        """An actor of this class is made here."""
        place = (cls.__module__, cls.__qualname__)
        if self._newest.get(place) != class_id:
            self._newest[place], self._places[class_id] = class_id, place
            while len(self._places) > CLASSES_MAX:
                oldest = next(iter(self._places))
                if self._newest.get(old := self._places.pop(oldest)) == oldest:
                    del self._newest[old]

    def found(self, actor: str, class_id: str) -> None:
        """A named actor was found. Warn, once for each version, when its class was defined anew since it was made."""
        place = self._places.get(class_id)
        if place is None or self._newest.get(place) == class_id:
            return
        del self._places[class_id]
        log.warning(
            "the actor %s runs an older definition of its class %s than the one of this program now: to have the new one, end it "
            "(`await af.kill(handle)`) and make it again",
            actor,
            place[1],
        )
