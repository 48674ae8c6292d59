"""One copy of each actor class: ten thousand actors arrive with ten thousand copies of its pickle."""

from __future__ import annotations

import sys
from collections import OrderedDict

from actorflow._core.protocol.messages import ActorSpec

CLASSES_MAX = 256
CLASS_BYTES_MAX = 64 * 1024 * 1024


class ClassCache:
    """The classes seen lately. What falls out costs memory again, nothing else."""

    __slots__ = ("_by_id", "_bytes")

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    def share(self, spec: ActorSpec) -> None:
        """Let `spec` use the copies that earlier actors of its class use."""
        intern = sys.intern
        spec.class_id, spec.class_name = intern(spec.class_id), intern(spec.class_name)
        spec.owner, spec.owner_address = intern(spec.owner), intern(spec.owner_address)
        spec.job_id, spec.namespace, spec.env = intern(spec.job_id), intern(spec.namespace), intern(spec.env)
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
