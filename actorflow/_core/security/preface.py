"""The first bytes of a connection, at both of its ends, and words for those who speak something else. Sans-io.

    connector                              node that owns the port
        | -- preface, 64 bytes ------------->  |   is it ours, which version, which clock, TLS or not
        | -- (TLS or the challenge) -------->  |   the target gets the socket, with the preface
        | <----- (verdict, and a close) ------ |   when the preface is refused

PF-1: the node reads the preface and not a byte more (`wanted`): what follows is for the target.
PF-2: who does not begin with our preface gets no answer, and is refused at the first byte that is wrong.
"""

from __future__ import annotations

import string

from actorflow._core.security.errors import Code, HandshakeRefused, refused
from actorflow._core.security.wire import HANDSHAKE_VERSION, MAGIC, PREFACE_BYTES, VERDICT_BYTES, VERDICT_MAGIC, Preface, Verdict

HANDSHAKE_TIMEOUT_S = 5.0
"""For all of it: preface, TLS, challenge."""
CLOCK_SKEW_S_MAX = 600.0
"""Certificates begin that long before they are made. With clocks farther apart nothing about time can be trusted."""

_HTTP = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE ", b"PRI * HTTP/2", b"HTTP/")
_SHOWN_BYTES_MAX = 16
_TEXT_BYTES_MIN = 4
_TEXT = frozenset(string.printable.encode())


def describe_foreign(data: bytes) -> str:
    """What it is that does not begin with our preface, as far as its first bytes tell."""
    if any(data.startswith(word[: max(3, len(data))]) for word in _HTTP if len(data) >= 3):
        return "it speaks HTTP: is a browser, a proxy or a health check pointed at this port?"
    if data[:1] == b"\x16" and data[1:2] in (b"", b"\x03"):
        return "it speaks TLS at once, without our preface: another program, or a proxy that adds TLS"
    if data.startswith(b"SSH-"):
        return "it speaks SSH"
    if not data:
        return "it said nothing"
    shown = data[:_SHOWN_BYTES_MAX]
    if shown.lstrip().startswith(b"<"):  # What a server of HTTP answers to what it takes for version 0.9.
        return f"it begins with {shown.decode('ascii', 'replace')!r}, as a page of a web server does"
    is_text = len(shown) >= _TEXT_BYTES_MIN and all(byte in _TEXT for byte in shown)
    return f"it begins with {shown.decode('ascii')!r}" if is_text else f"it begins with {shown.hex(' ')}"


class PrefaceReader:
    """The node's side: collects one preface and says whether this port goes on with it."""

    __slots__ = ("_deadline", "_error", "_held", "_outbox", "_plain_allowed", "_protocol_version", "_wall_time", "preface")

    def __init__(self, *, protocol_version: int, wall_time: float, deadline: float, plain_allowed: bool) -> None:
        self._protocol_version = protocol_version
        self._wall_time = wall_time
        self._deadline = deadline
        self._plain_allowed = plain_allowed
        self._held = b""
        self._error: HandshakeRefused | None = None
        self._outbox = b""
        self.preface: Preface | None = None

    @property
    def wanted(self) -> int:
        """How many bytes to read at most (PF-1)."""
        return 0 if self.preface is not None else PREFACE_BYTES - len(self._held)

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return len(self._held)

    def outgoing(self) -> bytes:
        """What must be written now, and only once: a verdict, or nothing."""
        data, self._outbox = self._outbox, b""
        return data

    def check(self, now: float) -> None:
        """Raises HandshakeRefused when the time is over. Called by a timer."""
        if self._error is not None:
            raise self._error
        if self.preface is None and now >= self._deadline:
            why = f"{len(self._held)} of {PREFACE_BYTES} bytes came in time" if self._held else "it said nothing in time"
            raise self._refuse(Code.TIMEOUT, f"no preface: {why}", answer=False)

    def receive(self, data: bytes, now: float) -> bytes:
        """Take bytes; afterwards `preface` may be there. Returns what was read beyond it. Raises HandshakeRefused."""
        self.check(now)
        wanted = self.wanted
        self._held += data[:wanted]
        if self.preface is not None:
            return data
        if not self._held.startswith(MAGIC[: len(self._held)]):
            raise self._refuse(Code.MALFORMED, f"refused a connection: {describe_foreign(self._held)}", answer=False)
        if len(self._held) == PREFACE_BYTES:
            try:
                preface = Preface.decode(self._held)
            except HandshakeRefused as error:
                raise self._refuse(error.code, str(error), answer=True) from None
            self._judge(preface)
            self.preface = preface
            self._held = b""
        return data[wanted:]

    def closed(self) -> HandshakeRefused:
        """The error when the connection ends before the preface is there: a port scan, a probe, or a peer that gave up."""
        heard = f"after {len(self._held)} bytes" if self._held else "without a word"
        return self._error or refused(Code.MALFORMED, f"closed {heard}")

    def turn_away(self, code: Code, why: str) -> HandshakeRefused:
        """The node's own refusal of a preface that is right: no such target, or too many at once. Returned, to be raised."""
        return self._refuse(code, why, answer=True)

    def _judge(self, preface: Preface) -> None:
        ours, theirs = (HANDSHAKE_VERSION, self._protocol_version), (preface.handshake_version, preface.protocol_version)
        if preface.handshake_version != HANDSHAKE_VERSION:
            raise self._refuse(Code.VERSION, version_text(ours[:1], theirs[:1]), answer=True)
        if ours != theirs:
            raise self._refuse(Code.VERSION, version_text(ours, theirs), answer=True)
        if abs(preface.wall_time - self._wall_time) > CLOCK_SKEW_S_MAX:
            raise self._refuse(Code.CLOCK, clock_text(self._wall_time, preface.wall_time), answer=True)
        if not preface.tls and not self._plain_allowed:
            raise self._refuse(Code.PLAIN, "refused a connection without TLS", answer=True)

    def _refuse(self, code: Code, message: str, *, answer: bool) -> HandshakeRefused:
        self._error = refused(code, message)
        self._held = b""
        self.preface = None
        if answer:
            self._outbox = Verdict(code, self._protocol_version, self._wall_time).encode()
        return self._error


class PrefaceReply:
    """The connector's side under TLS: are the first bytes that come back TLS, or a verdict on the preface?"""

    __slots__ = ("_deadline", "_error", "_held", "_preface", "tls_begun")

    def __init__(self, preface: Preface, *, deadline: float) -> None:
        self._preface = preface
        self._deadline = deadline
        self._held = b""
        self._error: HandshakeRefused | None = None
        self.tls_begun = False

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return len(self._held)

    def check(self, now: float) -> None:
        """Raises HandshakeRefused when the time is over. Called by a timer."""
        if self._error is not None:
            raise self._error
        if not self.tls_begun and now >= self._deadline:
            raise self._fail(Code.TIMEOUT, "nobody answered in time: something listens there, and does not speak")

    def receive(self, data: bytes, now: float) -> bytes:
        """Take bytes, return those that TLS shall have. Raises HandshakeRefused."""
        self.check(now)
        if self.tls_begun or not data:
            return data
        held = self._held + data[: VERDICT_BYTES - len(self._held)]
        if held[0] in (0x15, 0x16):
            # A record of TLS: an alert, or the beginning of its handshake.
            self.tls_begun = True
            return data
        if not held.startswith(VERDICT_MAGIC[: len(held)]):
            raise self._fail(Code.MALFORMED, f"no actorflow node answers there: {describe_foreign(held)}")
        self._held = held
        if len(held) == VERDICT_BYTES:
            verdict = Verdict.decode(held)
            raise self._fail(refusal_code(verdict.code), verdict_text(verdict, self._preface))
        return b""

    def _fail(self, code: Code, message: str) -> HandshakeRefused:
        self._held = b""
        self._error = refused(code, message)
        return self._error


def verdict_text(verdict: Verdict, preface: Preface) -> str:
    """What a verdict means to the one who connects, and what to do about it."""
    code = refusal_code(verdict.code)
    if code is Code.VERSION:
        ours, theirs = (HANDSHAKE_VERSION, preface.protocol_version), (verdict.handshake_version, verdict.protocol_version)
        return version_text(ours, theirs)
    if code is Code.CLOCK:
        return clock_text(preface.wall_time, verdict.wall_time)
    if code is Code.PLAIN and preface.tls:
        return "the other side speaks no TLS, and we came with it: leave out --tls and tokens, or start the head with --tls"
    text = _VERDICTS.get(code, "")
    return text if code == verdict.code else f"{text} (code {verdict.code}, which this version does not know)"


def version_text(ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    """Both versions, and the way out."""
    shown = [".".join(map(str, version)) for version in (theirs, ours)]
    return f"the other side speaks protocol {shown[0]} and this one {shown[1]}: install the same actorflow version on both sides"


def clock_text(ours: float, theirs: float) -> str:
    """How far apart the clocks are, and the way out."""
    apart = abs(theirs - ours)
    shown = f"{apart:.0f} s" if apart < 7200 else f"{apart / 3600:.1f} hours" if apart < 172_800 else f"{apart / 86_400:.1f} days"
    direction = "ahead of" if theirs > ours else "behind"
    return (
        f"the clock of the other side is {shown} {direction} ours, and at most {CLOCK_SKEW_S_MAX:.0f} s are tolerated: "
        "set both clocks (for instance with NTP)"
    )


def refusal_code(code: int) -> Code:
    """The meaning of a verdict that was not wanted. One that admits, where nothing was proven yet, is no verdict."""
    try:
        known = Code(code)
    except ValueError:
        return Code.NOT_ADMITTED
    return Code.MALFORMED if known is Code.ADMITTED else known


_VERDICTS = {
    Code.MALFORMED: "the other side could not read what we sent: something between us changed it, or that is another program",
    Code.PLAIN: "the other side wants TLS, and we came without: give this side a token or certificates, or --tls",
    Code.TARGET: "that process is not there any more: it has ended, or the port belongs to another node now",
    Code.BUSY: "too many connections there have not said yet who they are: try again in a moment",
    Code.TIMEOUT: "the handshake took too long",
    Code.NOT_ADMITTED: "the other side does not admit us; the reason is in its log: a wrong secret or token, another cluster, a wrong role",
    Code.EXPIRED: "the token has expired: have the head make a new one",
    Code.SPENT: "the token was for a single use, and was used: have the head make a new one",
    Code.FENCED: "this process was replaced by a newer one, or removed from the cluster: it has to join again as a new one",
}
