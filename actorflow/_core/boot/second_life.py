"""A node that the head has given up begins again as another one: in the same process, after everything of its first life has ended.

A node may be cut off from its head for longer than its lease lasts. The head cannot know for how long it will be: it gives the node up, and
what ran there runs elsewhere. The node finds out by its lease, or hears of it when it comes back. Its workers have ended then, its memory
is gone, and its name is fenced; but the machine is as good as it was, and it joins anew, with a token that the head gave it for this when
it joined.

    BA-1  Nothing of the first life is left: the second begins with a new image of the process, another session and another name.
    BA-2  The token is for a single use, ends when a certificate would, and is in no file, argument or variable.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from actorflow._core.boot import join_ticket
from actorflow._core.boot.session_dir import create_session_dir
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.tokens import parse_token

if TYPE_CHECKING:
    from actorflow._core.boot.cluster_node import ClusterNodeConfig

NOBODY = -1
"""As `ready_fd`: nobody waits to be told."""


def begin_again(config: ClusterNodeConfig, port: int, token: str) -> NoReturn:
    """Become a node of the same cluster, at the same port, with another name. Raises ClusterStartError, CredentialError, OSError."""
    ticket = join_ticket.of_token(parse_token(token.encode(), KeyKind.JOIN, "what the head has given this node to begin again with"))
    session = create_session_dir(os.urandom(6).hex())
    log_fd = os.open(f"{session.logs}/node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd in (1, 2):
        os.dup2(log_fd, fd)
    ticket_fd, write_fd = os.pipe()
    os.write(write_fd, ticket)
    os.close(write_fd)
    for fd in (ticket_fd, config.life_fd):
        if fd >= 0:
            os.set_inheritable(fd, True)  # All others close with this image.
    again = config._replace(session_dir=session.path, port=port, ready_fd=NOBODY, ticket_fd=ticket_fd)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "actorflow._core.boot.node_main", "cluster", again.to_json()])
