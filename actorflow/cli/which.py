"""Which cluster a command means, where this user has several on this host.

    WC-1  A command that only looks takes the newest, and says on stderr which that is and what others there are.
    WC-2  A command that changes a cluster takes none of several: it names them.
"""

from __future__ import annotations

import sys

from actorflow import _nodes

AUTO = "auto"
_NAME = "name one with --address"


def newest(address: str) -> str:
    """The address to look at (WC-1)."""
    clusters = _nodes.clusters() if address == AUTO else []
    if len(clusters) > 1:
        others = ", ".join(other.address for other in clusters[1:])
        print(f"this is the newest of {len(clusters)} clusters here, {clusters[0].address}; {_NAME}: {others}", file=sys.stderr)
        return clusters[0].address
    return address


def the_one(address: str) -> str:
    """The address of the only one whose nodes were started by hand: those of programs end with them (WC-2). Raises ValueError."""
    started = [cluster.address for cluster in _nodes.clusters() if cluster.started] if address == AUTO else []
    if len(started) > 1:
        raise ValueError(f"{len(started)} clusters of this user have nodes here; {_NAME}: {', '.join(started)}")
    return started[0] if started else address
