"""What lets a conversation outlive its connection: frames are counted, and kept until the other side has them. Sans-io.

    connector                                      acceptor
        | -- Hello(link) -------------------------->  |
        | <---------------------------------- Welcome |
        | == frames, counted by both ways ==========  |    and Received(n) now and then
        |             (the connection breaks)         |
        | -- Hello(link, received=17) ------------->  |
        | <--------------------- Welcome(received=23) |
        | == frames 24..                        18.. ==|

    RS-1  A frame is kept until the other side has said that it arrived; after a reset what is missing is sent again, so that each
          arrives once, in order (SEMANTICS 6).
    RS-2  What is kept is bounded. Beyond it the oldest frames go, and until the other side has said that it has these too the link
          cannot outlive a reset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import decode
from actorflow._core.protocol.messages import AnyMessage, Goodbye, Hello, Received, Welcome
from actorflow._core.protocol.session import Identity, Session

KEPT_BYTES_MAX = 64 << 20
TELL_FRAMES = 64
TELL_BYTES = 256 << 10
"""After so much that has arrived the other side is told; of less it is told a little later."""
OWN = frozenset({Received, Goodbye})
"""What is said about the link itself."""


class Ledger:
    """The frames that one side has sent and the other has not confirmed, by number: the first is number 0."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: deque[bytes] = deque()
        self._first = 0
        """The number of the oldest that is kept."""
        self.kept_bytes = 0

    @property
    def sent(self) -> int:
        """How many were sent so far."""
        return self._first + len(self._kept)

    def add(self, frame: bytes) -> None:
        """One more is about to be sent."""
        self._kept.append(frame)
        self.kept_bytes += len(frame)
        while self.kept_bytes > self._bytes_max:  # RS-2
            self._drop()

    def confirm(self, received: int) -> None:
        """The other side has that many. Raises ProtocolError for more than were sent."""
        if received > self.sent:
            raise ProtocolError(f"the peer confirms {received} frames of {self.sent} that were sent")
        while self._first < received:
            self._drop()

    def missing(self, received: int) -> list[bytes] | None:
        """What to send again to a side that has that many; None when some of it is not kept any more."""
        if not self._first <= received <= self.sent:
            return None
        self.confirm(received)
        return list(self._kept)

    def clear(self) -> None:
        """The link is over."""
        self._first = self.sent
        self._kept.clear()
        self.kept_bytes = 0

    def _drop(self) -> None:
        self.kept_bytes -= len(self._kept.popleft())
        self._first += 1


Judge = Callable[[Hello], "tuple[int, str]"]
"""Of a Hello: how many frames of its link have arrived here, and why it cannot go on; empty when it can, and for a new link."""


class LinkSession(Session):
    """A session that counts the frames behind the handshake, over all connections of its link."""

    __slots__ = ("_judge", "_link", "_told", "_untold_bytes", "frames", "goodbye", "on_received")

    def __init__(
        self, identity: Identity, *, acceptor: bool, link: str = "", frames: int = -1, judge: Judge | None = None
    ) -> None:
        """`frames`: how many have arrived by earlier connections; -1 for the first."""
        self._link = link
        self.frames = max(frames, 0)
        self._judge = judge
        self._told = self.frames
        self._untold_bytes = 0
        self.goodbye = False
        """The other side has said that it closes."""
        self.on_received: Callable[[int], None] | None = None
        super().__init__(identity, acceptor=acceptor, received=frames, link=link)

    def receive(self, data: bytes) -> list[AnyMessage]:
        """See Session. What is about the link itself is not returned; it is only ever the first message of its frame."""
        if self._error is not None:
            raise self._error
        try:
            messages: list[AnyMessage] = []
            for body in self._decoder.feed(data):
                if not self.ready:
                    messages += self._decode_all([body])
                    continue
                batch = decode(body)
                self.frames += 1
                if batch and type(batch[0]) in OWN:
                    self._own(batch.pop(0))
                messages = messages + batch if messages else batch
            if messages:
                self._untold_bytes += len(data)
            return messages
        except ProtocolError as error:
            self._error = error
            raise

    def _own(self, message: AnyMessage) -> None:
        if isinstance(message, Goodbye):
            self.goodbye = True
        elif isinstance(message, Received) and self.on_received is not None:
            self.on_received(message.frames)

    @property
    def untold(self) -> bool:
        """Something has arrived of which the other side has not been told."""
        return self._untold_bytes > 0

    @property
    def much_untold(self) -> bool:
        """... and it is so much that it should be told at once."""
        return self._untold_bytes >= TELL_BYTES or (self._untold_bytes > 0 and self.frames - self._told >= TELL_FRAMES)

    def tell(self) -> Received:
        """The message that tells it."""
        self._told, self._untold_bytes = self.frames, 0
        return Received(self.frames)

    def _welcome(self, hello: Hello, problem: str) -> Welcome:
        if self._judge is not None and not problem:
            self.frames, problem = self._judge(hello)
            self._told = self.frames
        welcome = super()._welcome(hello, problem)
        welcome.received = self.frames
        return welcome
