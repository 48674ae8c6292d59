"""Through which node a driver joins: what `af.init(address=...)` and `actorflow status --address` name, found on this host.

WN-1  A node is known by any name of its address: `localhost:6379` is the one that listens on 127.0.0.1:6379.
WN-2  What cannot be an address, and what does not resolve, is said as that; where nothing was found, so is where we looked.
WN-3  "auto" is the newest node that does not stand still.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from actorflow._core.base.addresses import SCHEME
from actorflow._core.base.errors import ClusterConnectionError, ClusterStartError
from actorflow._core.boot.node_launch import SECRET_VARIABLES
from actorflow._core.boot.session_dir import SessionInfo, find_all, temp_dirs

if TYPE_CHECKING:
    from actorflow._core.security.tokens import Token

_, TOKEN, TOKEN_FILE = SECRET_VARIABLES
AUTO = "auto"


class WhichNode(NamedTuple):
    """Where to join. `node`: that of this host, where one was found; `token`: what a driver from outside the cluster's hosts comes with."""

    address: str
    node: SessionInfo | None = None
    token: Token | None = None


def which_node(address: str, environ: Mapping[str, str] | None = None) -> WhichNode:
    """The node that this address means: "auto", HOST:PORT, or a session directory. Raises ClusterConnectionError."""
    environ = os.environ if environ is None else environ
    everyone = find_all(joining=True)
    nodes = [node for node in everyone if node.address]
    if address == AUTO:
        if not nodes:
            waiting = "".join(f"; a node (pid {node.pid}) waits here for its head at {node.head}" for node in everyone[:1])
            raise ClusterConnectionError(
                f'address="auto": no actorflow cluster of this user runs on this host{_looked(environ)}{waiting}; start one with af.init() '
                "in another process, or with `actorflow start --head`"
            )
        best = next((node for node in nodes if not stands_still(node.pid)), nodes[0])
        return WhichNode(best.address, best)
    if ":" not in address and not os.path.isdir(address):
        raise ClusterConnectionError(f'address={address!r}: expected "auto", HOST:PORT, or the directory of a session that exists')
    if ":" not in address or address.startswith("/"):
        address = f"{SCHEME}{address}/node.sock"
    if address.startswith(SCHEME):
        return next((WhichNode(node.address, node) for node in nodes if node.address == address), WhichNode(address))
    try:
        node = node_at(address, nodes) or _joined_at(address, nodes)
    except ClusterStartError as error:
        raise ClusterConnectionError(str(error)) from error
    if node is not None:
        return WhichNode(node.address, node)
    if TOKEN in environ or TOKEN_FILE in environ:
        from actorflow._core.security.credential_files import load_token
        from actorflow._core.security.roles import KeyKind

        return WhichNode(address, token=load_token(KeyKind.CLIENT, environ.get(TOKEN_FILE), environ))
    known = ", ".join(node.tcp for node in nodes if node.tcp) or "none"
    raise ClusterConnectionError(
        f"no node of this user listens at {address} on this host (there are: {known}{_looked(environ)}). A driver joins through a node on "
        "its own host: start one with `actorflow start --address HOST:PORT`. From outside the cluster's hosts it needs a client token "
        f"(`actorflow token client` at the head), in {TOKEN} or in the file that {TOKEN_FILE} names"
    )


def node_at(address: str, nodes: Sequence[SessionInfo]) -> SessionInfo | None:
    """Which of these listens at HOST:PORT (WN-1); None: none of them. Raises ClusterStartError for what is none, or does not resolve."""
    names = _names(address)
    known = {node.tcp: node for node in nodes if node.tcp}
    return next((known[name] for name in names if name in known), None)


def _joined_at(address: str, nodes: Sequence[SessionInfo]) -> SessionInfo | None:
    """A node here that has joined the head there: which is then on another host."""
    names = _names(address)
    return next((node for node in nodes if node.head in names), None)


def _names(address: str) -> list[str]:
    """It and those that it resolves to."""
    from actorflow._core.boot.node_place import addresses_of, host_and_port  # A driver with a cluster of its own needs none of that.

    host, port = host_and_port(address)
    return [address] + [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, _ in addresses_of(host, port)]


def stands_still(pid: int) -> bool:
    """True of a process that was stopped (SIGSTOP, a debugger): it would answer nobody."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    return False


def _looked(environ: Mapping[str, str]) -> str:
    """Where clusters are looked for, where that is not where everybody looks: one started with another setting is not seen."""
    chosen = next((name for name in ("ACTORFLOW_TMPDIR", "TMPDIR") if environ.get(name)), "")
    return f"; looked in {', '.join(temp_dirs(environ))}, as {chosen} says" if chosen else ""
