"""The mutual challenge: each side proves to the other that it has a key, before any other byte is looked at. Sans-io and synchronous.

    connector                                  acceptor
        | -- opening ------------------------->  |   role, process, incarnation, key id, nonce
        | <-------------------------- answer --- |   role, process, incarnation, nonce, MAC
        | -- proof --------------------------->  |   MAC; messages may follow at once
        | <-------------------------- verdict -- |   admitted, or a code and a close

It runs inside TLS, or bare on loopback. Each MAC is HMAC-SHA256 over a label of its side and the transcript: the preface, the opening, the
answer and both certificate fingerprints, all of fixed size. Whoever stands between has other fingerprints (a channel binding, as RFC 5929
calls it); whoever replays has other nonces; whoever reflects has the other label, target and name.

MC-1: nobody is admitted whose MAC is wrong, who names an unknown key, or who is not what its key and certificate say (see roles).
MC-2: all those get the same answers at the same moments: an unknown key is answered with a MAC of a random one. The reason is for our log.
MC-3: no more is kept than one message, a byte out of turn ends the handshake, and so does the deadline.
MC-4: no process below its fence is admitted, on either side.
MC-5: an error ends it: every further `receive` raises it again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from actorflow._core.security.errors import Code, HandshakeRefused, refused
from actorflow._core.security.fences import Fences
from actorflow._core.security.keys import KEY_BYTES, Key, KeyId, Keyring
from actorflow._core.security.passes import key_of_visitor
from actorflow._core.security.preface import describe_foreign, refusal_code, verdict_text
from actorflow._core.security.roles import KeyKind, Role, accepting_problem, connecting_problem
from actorflow._core.security.tokens import SpentTokens, has_expired
from actorflow._core.security.wire import (
    ANSWER_BYTES,
    ANSWER_TAG,
    MAC_BYTES,
    NONCE_BYTES,
    OPENING_BYTES,
    OPENING_TAG,
    PROOF_BYTES,
    PROOF_TAG,
    VERDICT_BYTES,
    VERDICT_TAG,
    Answer,
    Opening,
    Party,
    Preface,
    Proof,
    Verdict,
)

NO_CERTIFICATE = bytes(32)
"""In the place of a fingerprint: that side showed none."""
CHANNEL_ID_BYTES = 16

_ACCEPTOR = b"actorflow handshake 1 acceptor\0"
_CONNECTOR = b"actorflow handshake 1 connector\0"
_CHANNEL = b"actorflow handshake 1 channel\0"


@dataclass(frozen=True, slots=True)
class Binding:
    """What TLS knows of this connection: the fingerprints of both certificates, and the names in the peer's. BARE without TLS."""

    tls: bool
    own: bytes = NO_CERTIFICATE
    peer: bytes = NO_CERTIFICATE
    peer_names: frozenset[str] = frozenset()


BARE = Binding(tls=False)


@dataclass(slots=True)
class Terms:
    """What a process goes by on all its connections. Replace the ring when secrets change: handshakes that begin later see it."""

    me: Party
    keyring: Keyring
    random_bytes: Callable[[int], bytes]
    protocol_version: int
    targets: frozenset[str] = frozenset()
    """Names in a preface that mean this process, besides its id: the empty one for the owner of the port, `head` for the head."""
    fences: Fences = field(default_factory=Fences)
    spent: SpentTokens = field(default_factory=SpentTokens)


@dataclass(frozen=True, slots=True)
class Expected:
    """Whom a connector wants to find. Empty and 0: anybody, any. `job_id`: whose process it visits, when it comes with a pass."""

    roles: frozenset[Role]
    process_id: str = ""
    incarnation_min: int = 0
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Proven:
    """The peer, once it has proven its key. `channel_id` is this connection's own, known to both sides and to nobody else."""

    party: Party
    key_id: KeyId
    channel_id: bytes


class _Side:
    """What both sides share: one expected message at a time, the transcript, the deadline."""

    __slots__ = ("_binding", "_deadline", "_error", "_held", "_outbox", "_preface", "_terms", "done", "peer")

    def __init__(self, terms: Terms, preface: Preface, binding: Binding, deadline: float) -> None:
        if preface.tls != binding.tls:
            raise ValueError("the preface and the connection do not agree whether this is TLS")
        self._terms = terms
        self._preface = preface
        self._binding = binding
        self._deadline = deadline
        self._held = b""
        self._outbox: list[bytes] = []
        self._error: HandshakeRefused | None = None
        self.done = False
        self.peer: Proven | None = None
        """Who is there: once it has proven its key, which a connector sees before `done`."""

    @property
    def held(self) -> int:
        """How many bytes are kept."""
        return len(self._held)

    def outgoing(self) -> bytes:
        """What must be written now, and only once."""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def check(self, now: float) -> None:
        """Raises HandshakeRefused when the time is over. Called by a timer."""
        if self._error is not None:
            raise self._error
        if not self.done and now >= self._deadline:
            raise self._refuse(Code.TIMEOUT, f"{self._waited_for()} did not come in time")

    def receive(self, data: bytes, now: float) -> bytes:
        """Take bytes; return those beyond the handshake, which are for the session. Raises HandshakeRefused: write `outgoing()`, close."""
        self.check(now)
        while data and not self.done:
            size = self._size_of(self._held[0] if self._held else data[0])
            if size == 0:
                raise self._refuse(Code.MALFORMED, f"{self._waited_for()} was expected: {describe_foreign(self._held + data[:16])}")
            wanted = size - len(self._held)
            self._held += data[:wanted]
            data = data[wanted:]
            if len(self._held) == size:
                message, self._held = self._held, b""
                try:
                    self._take(message)
                except HandshakeRefused as error:
                    # What was refused on purpose is known already; the rest could not be decoded.
                    raise self._error or self._refuse(error.code, str(error)) from None
                if data and not self.done:
                    raise self._refuse(Code.MALFORMED, "the peer spoke out of turn")  # MC-3
        return data

    def closed(self) -> HandshakeRefused:
        """The error when the connection ends in the middle of this."""
        if self._error is not None:
            return self._error
        why = f"closed when {self._waited_for()} was expected; {self._closed_hint()}"
        return HandshakeRefused(why, code=Code.NOT_ADMITTED, cut=True)

    def _size_of(self, tag: int) -> int:
        """The size of the message that begins with `tag`, 0 when it is none that may come now."""
        raise NotImplementedError

    def _take(self, message: bytes) -> None:
        raise NotImplementedError

    def _waited_for(self) -> str:
        raise NotImplementedError

    def _closed_hint(self) -> str:
        raise NotImplementedError

    def _last_words(self, code: Code) -> list[bytes]:
        """What the other side is told when this one refuses."""
        return []

    def _refuse(self, code: Code, message: str) -> HandshakeRefused:
        """End it. Returns the error, to be raised."""
        self._held = b""
        self._outbox = self._last_words(code)
        self.peer = None
        self._error = refused(code, message)
        return self._error

    def _transcript(self, opening: bytes, answer: bytes, connector: bytes, acceptor: bytes) -> bytes:
        """Everything both sides have seen. Every part has one size, so that no two handshakes have the same."""
        return self._preface.encode() + opening + answer[:-MAC_BYTES] + connector + acceptor


class Acceptor(_Side):
    """The side that was called. It admits: `done` is True once the peer has proven itself and the verdict is in `outgoing`."""

    __slots__ = ("_key", "_opening", "_problem", "_transcript_bytes", "_wall_time")

    def __init__(self, terms: Terms, preface: Preface, binding: Binding, *, wall_time: float, deadline: float) -> None:
        super().__init__(terms, preface, binding, deadline)
        self._wall_time = wall_time
        self._opening: Opening | None = None
        self._key = b""
        self._problem = ""
        self._transcript_bytes = b""

    def _size_of(self, tag: int) -> int:
        if self._opening is None:
            return OPENING_BYTES if tag == OPENING_TAG else 0
        return PROOF_BYTES if tag == PROOF_TAG else 0

    def _waited_for(self) -> str:
        return "the opening" if self._opening is None else f"the proof of {self._opening.party}"

    def _closed_hint(self) -> str:
        if self._problem:
            return f"it would not have been admitted: {self._problem}"
        return "it may hold another secret, or not trust us" if self._opening is not None else "a probe, or a peer that gave up"

    def _take(self, message: bytes) -> None:
        if self._opening is None:
            self._answer(message)
        else:
            self._admit(self._opening, Proof.decode(message))

    def _answer(self, message: bytes) -> None:
        opening = Opening.decode(message)
        key = self._find_key(opening)
        decoy = self._terms.random_bytes(KEY_BYTES)
        self._problem = self._problem_with(opening, key)
        self._key = decoy if key is None or self._problem else key.material  # MC-2
        answer = Answer(self._terms.me, self._terms.random_bytes(NONCE_BYTES))
        transcript = self._transcript(message, answer.encode(), self._binding.peer, self._binding.own)
        mac = _mac(self._key, _ACCEPTOR, transcript)
        self._transcript_bytes = transcript + mac
        self._opening = opening
        self._outbox.append(Answer(answer.party, answer.nonce, mac).encode())

    def _find_key(self, opening: Opening) -> Key | None:
        ring, key_id = self._terms.keyring, opening.key_id
        if key_id.kind is KeyKind.VISIT:
            return key_of_visitor(ring, key_id, opening.party.process_id)
        return ring.find(key_id)

    def _problem_with(self, opening: Opening, key: Key | None) -> str:
        """MC-1, for the log."""
        party, key_id, binding = opening.party, opening.key_id, self._binding
        if party == self._terms.me:
            return "it says that it is us: our own words came back"
        if self._preface.target not in (self._terms.me.process_id, *self._terms.targets):
            return f"it wanted {self._preface.target or 'the owner of the port'}, which is not us"
        if key is None:
            return f"we have no {key_id}"
        return connecting_problem(
            party.role, party.process_id, key_id.kind, key_id.subject, tls=binding.tls, names=binding.peer_names
        )

    def _admit(self, opening: Opening, proof: Proof) -> None:
        party, key_id, terms = opening.party, opening.key_id, self._terms
        right = hmac.compare_digest(_mac(self._key, _CONNECTOR, self._transcript_bytes), proof.mac)
        if not right or self._problem:
            why = self._problem or f"its proof is wrong: it does not have our {key_id}, or somebody is in between"
            raise self._refuse(Code.NOT_ADMITTED, f"refused {party}: {why}")
        if has_expired(key_id, self._wall_time):
            what = "pass" if key_id.kind is KeyKind.VISIT else "token"
            raise self._refuse(Code.EXPIRED, f"refused {party}: its {what} ended {self._wall_time - key_id.expires:.0f} s ago")
        if not terms.fences.admits(party.process_id, party.incarnation):
            raise self._refuse(Code.FENCED, f"refused {party}: it was replaced or removed")
        if not terms.spent.spend(key_id, self._wall_time):
            raise self._refuse(Code.SPENT, f"refused {party}: its token was used before")
        self.peer = Proven(party, key_id, _channel_id(self._key, self._transcript_bytes))
        self.done = True
        self._outbox.append(self._verdict(Code.ADMITTED))

    def _last_words(self, code: Code) -> list[bytes]:
        return [self._verdict(code)]

    def _verdict(self, code: Code) -> bytes:
        return Verdict(code, self._terms.protocol_version, self._wall_time).encode()


class Connector(_Side):
    """The side that calls. From `may_send` on the acceptor is proven and messages may follow the proof; `done` when it has admitted us."""

    __slots__ = ("_expected", "_key", "_opening_bytes")

    def __init__(
        self, terms: Terms, key: Key, preface: Preface, binding: Binding, expected: Expected, *, deadline: float
    ) -> None:
        super().__init__(terms, preface, binding, deadline)
        self._key = key
        self._expected = expected
        self._opening_bytes = Opening(terms.me, key.id, terms.random_bytes(NONCE_BYTES)).encode()
        self._outbox.append(self._opening_bytes)

    @property
    def may_send(self) -> bool:
        """Whether the acceptor has proven itself."""
        return self.peer is not None

    def _size_of(self, tag: int) -> int:
        if tag == VERDICT_TAG:
            return VERDICT_BYTES
        return ANSWER_BYTES if tag == ANSWER_TAG and self.peer is None else 0

    def _waited_for(self) -> str:
        return "the answer" if self.peer is None else "the verdict"

    def _closed_hint(self) -> str:
        return "the log of the other side may have the reason"

    def _take(self, message: bytes) -> None:
        if message[0] == VERDICT_TAG:
            verdict = Verdict.decode(message)
            if verdict.code != Code.ADMITTED or self.peer is None:
                told = self.peer is not None
                error = self._refuse(refusal_code(verdict.code), verdict_text(verdict, self._preface))
                error.told = told
                raise error
            self.done = True
        else:
            self._prove(message)

    def _prove(self, message: bytes) -> None:
        answer = Answer.decode(message)
        transcript = self._transcript(self._opening_bytes, message, self._binding.own, self._binding.peer)
        right = hmac.compare_digest(_mac(self._key.material, _ACCEPTOR, transcript), answer.mac)
        if not right:
            why = "it does not have our key or does not accept it from us (its log says), or somebody is in between"
            raise self._refuse(Code.NOT_ADMITTED, f"the other side has not proven that it is of this cluster: {why}")
        if problem := self._problem_with(answer.party):
            raise self._refuse(Code.NOT_ADMITTED, f"{answer.party} answers there, which we do not speak with: {problem}")
        if not self._terms.fences.admits(answer.party.process_id, answer.party.incarnation):
            raise self._refuse(Code.FENCED, f"{answer.party} answers there, which was replaced or removed")
        transcript += answer.mac
        self.peer = Proven(answer.party, self._key.id, _channel_id(self._key.material, transcript))
        self._outbox.append(Proof(_mac(self._key.material, _CONNECTOR, transcript)).encode())

    def _problem_with(self, party: Party) -> str:
        expected, key_id, binding = self._expected, self._key.id, self._binding
        if party == self._terms.me:
            return "it says that it is us"
        if party.role not in expected.roles:
            return f"we expected a {' or '.join(role.name.lower() for role in sorted(expected.roles))}"
        if expected.process_id not in ("", party.process_id):
            return f"we expected process {expected.process_id}"
        if party.incarnation < expected.incarnation_min:
            return f"we expected incarnation {expected.incarnation_min} or a later one"
        subject = expected.job_id if key_id.kind is KeyKind.VISIT else key_id.subject
        return accepting_problem(party.role, party.process_id, key_id.kind, subject, tls=binding.tls, names=binding.peer_names)


def _mac(key: bytes, label: bytes, transcript: bytes) -> bytes:
    return hmac.digest(key, label + transcript, "sha256")


def _channel_id(key: bytes, transcript: bytes) -> bytes:
    return _mac(key, _CHANNEL, transcript)[:CHANNEL_ID_BYTES]
