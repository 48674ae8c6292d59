"""A driver that wants a node to leave the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow._core.base.errors import OptionError
from actorflow._core.protocol import messages as m

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core


async def drain_node(core: Core, node_id: str, deadline_s: float, reason: str) -> str:
    """Return the whole id of the node when it drains. Raises OptionError when it is not known, or cannot leave."""
    reply: m.DrainReply = await core.directory.ask(lambda token: m.DrainNode(token, node_id, deadline_s, reason))
    if reply.error:
        raise OptionError(reply.error)
    return reply.node_id
