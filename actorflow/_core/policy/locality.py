"""Which nodes are worth going to for the arguments that lie there. Pure.

LY-1: a node that has less than LOCALITY_BYTES_MIN of the arguments is no reason to go there.
LY-2: of two nodes that have equally much the near one comes first, and then the order of their ids decides.
"""

from __future__ import annotations

from collections.abc import Iterable

LOCALITY_BYTES_MIN = 1 << 20
"""A node that holds less of the arguments is not worth the way: this is moved in less than a millisecond."""
HOLDERS_MAX = 8
"""Nodes that are named with one request, those with the most first."""


def worth_going_to(pieces: Iterable[tuple[str, int]], near: str) -> dict[str, int]:
    """Bytes by node, the most first, out of (node, bytes) for each holder of each argument. `near`: the node of whoever asks."""
    found: dict[str, int] = {}
    for node_id, size in pieces:
        found[node_id] = found.get(node_id, 0) + size
    worth = [(-size, node_id != near, node_id) for node_id, size in found.items() if size >= LOCALITY_BYTES_MIN]
    worth.sort()
    return {node_id: -size for size, _, node_id in worth[:HOLDERS_MAX]}
