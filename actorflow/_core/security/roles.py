"""What a key entitles to: who may act as what with it, on which side of a connection, and with which certificate. Pure.

RL-1: a key of a job makes nobody a node or a head, and is good for that job only.
RL-2: between hosts, whoever acts as a node or a head shows a certificate that names this process as one. The key alone is not
      enough, but for the node that joins, which has no certificate yet and speaks with the head only.
RL-3: a pass makes a worker or a driver of one job a visitor at those of another, and between hosts both show the certificate of their job.
"""

from __future__ import annotations

from collections.abc import Set
from enum import IntEnum

URI_SCHEME = "actorflow:"
"""In a certificate a name is the URI `actorflow:node/<process id>`, or `actorflow:job/<job id>`."""


class Role(IntEnum):
    """What a process is."""

    HEAD = 1
    NODE = 2
    WORKER = 3
    DRIVER = 4


class KeyKind(IntEnum):
    """What a key is for."""

    NODE = 1
    """Nodes and the head among themselves."""
    JOB = 2
    """The workers and drivers of one job, with one another and with nodes."""
    JOIN = 3
    """A token that lets a machine become a node."""
    CLIENT = 4
    """A token that lets a driver in from outside."""
    VISIT = 5
    """A pass: a process of one job speaks with those of another (see passes)."""


ROOT_KINDS = (KeyKind.NODE, KeyKind.JOB, KeyKind.JOIN, KeyKind.CLIENT)
"""The kinds that have a root of their own; passes come from the keys of jobs."""
OF_JOBS = frozenset({Role.WORKER, Role.DRIVER})

MAY_CONNECT: dict[KeyKind, frozenset[Role]] = {
    KeyKind.NODE: frozenset({Role.HEAD, Role.NODE}),
    KeyKind.JOB: OF_JOBS,
    KeyKind.JOIN: frozenset({Role.NODE}),
    KeyKind.CLIENT: frozenset({Role.DRIVER}),
    KeyKind.VISIT: OF_JOBS,
}
MAY_ACCEPT: dict[KeyKind, frozenset[Role]] = {
    KeyKind.NODE: frozenset({Role.HEAD, Role.NODE}),
    KeyKind.JOB: frozenset(Role),
    KeyKind.JOIN: frozenset({Role.HEAD}),
    KeyKind.CLIENT: frozenset({Role.HEAD}),
    KeyKind.VISIT: OF_JOBS,
}


def certified_name(role: Role, name: str) -> str:
    """How a certificate names a head or a node (by process id), or what belongs to a job (by job id)."""
    kind = "job" if role in OF_JOBS else role.name.lower()
    return f"{kind}/{name}"


def connecting_problem(role: Role, process_id: str, kind: KeyKind, subject: str, *, tls: bool, names: Set[str]) -> str:
    """Why a process that connects may not act as it says, for the log; empty when it may.

    `subject` is the job of a key of a job, and of a pass that of its visitor; `names` are those in the peer's certificate, none when it
    showed none.
    """
    if role not in MAY_CONNECT[kind]:
        return f"a {kind.name} key does not make a {role.name.lower()}"
    if not tls:
        return ""
    if kind is KeyKind.NODE:
        return _missing(certified_name(role, process_id), names)
    if kind is KeyKind.VISIT or (kind is KeyKind.JOB and names):
        return _missing(certified_name(role, subject), names)
    return ""


def accepting_problem(role: Role, process_id: str, kind: KeyKind, subject: str, *, tls: bool, names: Set[str]) -> str:
    """As `connecting_problem`, of the process that accepts: between hosts it always shows a certificate. `subject`: of a pass its host."""
    if role not in MAY_ACCEPT[kind]:
        return f"a {role.name.lower()} does not accept a {kind.name} key"
    if not tls:
        return ""
    named = role in (Role.HEAD, Role.NODE)
    return _missing(certified_name(role, process_id if named else subject), names)


def _missing(name: str, names: Set[str]) -> str:
    if name in names:
        return ""
    shown = ", ".join(sorted(names)) if names else "nobody: none was shown"
    return f"its certificate would have to name {name}, and names {shown}"
