"""The handshake: who is on the other side, and do we speak the same protocol. Sans-io.

    connector                         acceptor
        | -- Hello ------------------->  |   version, role, process id
        | <------------------ Welcome -- |   or Welcome(error=...), then close
        | == messages, both ways ======= |
"""

from __future__ import annotations

from dataclasses import dataclass, field

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import PROTOCOL_VERSION, decode, encode
from actorflow._core.protocol.framing import FrameDecoder
from actorflow._core.protocol.messages import AnyMessage, Hello, Welcome

ROLES = ("driver", "worker", "node", "head")


@dataclass(slots=True)
class Identity:
    """What a process says of itself on every connection it makes or accepts."""

    role: str
    process_id: str
    job_id: str = ""
    address: str = ""
    pid: int = 0
    namespace: str = ""
    sys_path: list[str] = field(default_factory=list)
    info: dict[str, str] = field(default_factory=dict)
    node_id: str = ""

    def hello(self, link: str = "", received: int = -1) -> Hello:
        """The first message of a connector."""
        return Hello(
            PROTOCOL_VERSION,
            self.role,
            self.process_id,
            self.job_id,
            self.address,
            self.pid,
            self.namespace,
            self.sys_path,
            self.node_id,
            link,
            received,
        )


class Session:
    """One side of one connection: bytes in, messages out, and before that the handshake.

    SE-1: no message but Hello (acceptor) or Welcome (connector) is accepted before the handshake is done.
    SE-2: a protocol error ends the session: every further `receive` raises it again; the connection must be closed.
    """

    __slots__ = ("_decoder", "_error", "_identity", "_outbox", "acceptor", "hello", "ready", "welcome")

    def __init__(self, identity: Identity, *, acceptor: bool, link: str = "", received: int = -1) -> None:
        self._identity = identity
        self._decoder = FrameDecoder()
        self._error: ProtocolError | None = None
        self.acceptor = acceptor
        self.ready = False
        self.hello: Hello | None = None
        self.welcome: Welcome | None = None
        self._outbox: list[bytes] = [] if acceptor else [encode([identity.hello(link, received)])]

    def outgoing(self) -> bytes:
        """The handshake bytes that must be written now (and only once)."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def rest(self) -> bytes:
        """What has been received and is no whole frame, for who reads on in another way."""
        return self._decoder.rest()

    def receive(self, data: bytes) -> list[AnyMessage]:
        """Take bytes, return the messages they complete. Handshake messages are consumed here: see `ready`, `hello`, `welcome`.

        Raises ProtocolError; then write `outgoing()` (it may hold a refusal) and close.
        """
        if self._error is not None:
            raise self._error
        try:
            bodies = self._decoder.feed(data)
            if self.ready and len(bodies) == 1:
                return decode(bodies[0])
            return self._decode_all(bodies)
        except ProtocolError as error:
            self._error = error
            raise

    def _decode_all(self, bodies: list[memoryview]) -> list[AnyMessage]:
        messages: list[AnyMessage] = []
        for body in bodies:
            batch = decode(body)
            if not self.ready:
                if not batch:
                    raise ProtocolError("an empty frame came before the handshake")
                self._handshake(batch[0])
                batch = batch[1:]
            messages.extend(batch)
        return messages

    def _welcome(self, hello: Hello, problem: str) -> Welcome:
        me = self._identity
        return Welcome(me.process_id, me.role, me.address, problem, me.info, me.node_id)

    def _handshake(self, message: AnyMessage) -> None:
        if self.acceptor:
            if not isinstance(message, Hello):
                raise ProtocolError(f"the first message must be Hello, not {type(message).__name__}")
            problem = ""
            if message.version != PROTOCOL_VERSION:
                problem = f"protocol {message.version!r} meets {PROTOCOL_VERSION!r}: install the same actorflow version on both sides"
            elif message.role not in ROLES:
                problem = f"unknown role {message.role!r}: known are {', '.join(ROLES)}"
            welcome = self._welcome(message, problem)
            self._outbox.append(encode([welcome]))
            if welcome.error:
                raise ProtocolError(f"refused a connection from {message.process_id!r}: {welcome.error}")
            self.hello = message
        else:
            if not isinstance(message, Welcome):
                raise ProtocolError(f"the first answer must be Welcome, not {type(message).__name__}")
            if message.error:
                raise ProtocolError(f"{message.role} {message.process_id} refused this connection: {message.error}")
            self.welcome = message
        self.ready = True
