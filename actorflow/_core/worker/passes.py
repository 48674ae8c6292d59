"""The passes of one process: it asks the head for them when it is to speak with processes of other jobs between hosts.

The rules are in `security/passes.py`, the head's part in `head/passes.py`.

    PA-1  Whoever wants a pass has one, or an error, within ASK_TIMEOUT_S; those who want the same one ask once.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from actorflow._core.protocol.messages import AskPass, PassGiven
from actorflow._core.security.keys import Key, KeyId
from actorflow._core.security.passes import PassBook
from actorflow._core.security.roles import KeyKind

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

ASK_TIMEOUT_S = 5.0


class Passes:
    """See the module; a PassSource. On the protocol's loop."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._book = PassBook()
        self._asked: dict[str, asyncio.Future[PassGiven]] = {}

    async def pass_for(self, job_id: str) -> Key:
        """See PassSource."""
        core = self._core
        key = self._book.find(job_id, core.ports.monotonic())
        if key is not None:
            return key
        answer = self._asked.get(job_id)
        if answer is None:
            if core.closed is not None:
                raise ConnectionAbortedError(errno.ECONNABORTED, f"no pass to job {job_id}: {core.closed}")
            answer = self._asked[job_id] = core.ports.loop.create_future()
            with core.lock:
                core.head_line.ask("pass", job_id, AskPass(job_id))
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                given = await asyncio.shield(answer)
        except TimeoutError:
            if self._asked.get(job_id) is answer:
                del self._asked[job_id]
                core.head_line.answered("pass", job_id)
            what = f"the head has not answered for {ASK_TIMEOUT_S:g} s, and without its pass no process of job {job_id} speaks with us"
            raise TimeoutError(errno.ETIMEDOUT, f"{what}: try again when it is there") from None
        if given.error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"the head gives no pass to job {job_id}: {given.error}")
        key = self._book.find(job_id, core.ports.monotonic())
        assert key is not None, "PA-1: what was given is in the book"
        return key

    def refused(self, job_id: str, key: Key) -> None:
        """See PassSource."""
        self._book.refused(job_id, key)

    def on_given(self, peer: Peer, message: PassGiven) -> None:
        """The head answers. From anybody else it means nothing: it would decide whom we take for a process of that job."""
        if peer.role != "head":
            return
        if not message.error:
            found = [
                Key(KeyId(KeyKind.VISIT, secret_id, message.visitor_job, message.expires), material)
                for secret_id, material in message.keys
            ]
            self._book.enter(message.job_id, found, self._core.ports.monotonic())
        self._core.head_line.answered("pass", message.job_id)
        answer = self._asked.pop(message.job_id, None)
        if answer is not None and not answer.done():
            answer.set_result(message)
