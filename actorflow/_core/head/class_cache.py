"""One copy of what the actors of a class have in common: ten thousand arrive with ten thousand copies of its pickle."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

from actorflow._core.protocol.messages import ActorSpec

CLASSES_MAX = 256
CLASS_BYTES_MAX = 64 * 1024 * 1024
ALIKE = ("args", "resources", "groups")
"""Fields that one actor often has in common with the one before; nobody changes the values."""
ALIKE_SIZE_MAX = 1024


class ClassCache:
    """The classes seen lately. What falls out costs memory again, nothing else."""

    __slots__ = ("_by_id", "_bytes", "_last")

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._last: dict[str, Any] = {}
        """What was alike in the actor before: its arguments and other small things."""
        self._bytes = 0

    def share(self, spec: ActorSpec) -> None:
        """Let `spec` use the copies that earlier actors of its class use."""
        intern = sys.intern
        spec.class_id, spec.class_name = intern(spec.class_id), intern(spec.class_name)
        spec.owner, spec.owner_address = intern(spec.owner), intern(spec.owner_address)
        spec.job_id, spec.namespace, spec.env = intern(spec.job_id), intern(spec.namespace), intern(spec.env)
        last = self._last
        for field in ALIKE:
            value = getattr(spec, field)
            if value == last.get(field):
                setattr(spec, field, last[field])
            else:
                last[field] = value if len(value) <= ALIKE_SIZE_MAX else None
        known = self._by_id.get(spec.class_id)
        if known is not None and known == (spec.class_pickle, spec.methods):
            spec.class_pickle, spec.methods = known
            return
        if known is not None:
            self._bytes -= len(known[0]) + len(known[1])
        self._by_id[spec.class_id] = (spec.class_pickle, spec.methods)
        self._by_id.move_to_end(spec.class_id)
        self._bytes += len(spec.class_pickle) + len(spec.methods)
        while len(self._by_id) > CLASSES_MAX or self._bytes > CLASS_BYTES_MAX:
            _, (pickle, methods) = self._by_id.popitem(last=False)
            self._bytes -= len(pickle) + len(methods)
