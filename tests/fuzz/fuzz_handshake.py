"""What strangers send, against everything that reads a byte before its sender is known.

    python -m tests.fuzz.fuzz_handshake --iterations 1000000 --seed 7

Honest messages that are damaged, cut, repeated, mixed up and cut into pieces anew, and plain noise. Whatever comes in, the reader
waits for more or refuses: nobody is admitted, no more than one message is kept, and nothing is unpickled. The same seed does the same.
"""

from __future__ import annotations

import argparse
import pickle
import random
from collections import Counter
from collections.abc import Callable

from actorflow._core.security.challenge import BARE, Acceptor, Connector, Expected
from actorflow._core.security.errors import HandshakeRefused
from actorflow._core.security.keys import Key, Keyring
from actorflow._core.security.preface import PrefaceReader, PrefaceReply
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import Secrets
from actorflow._core.security.wire import (
    ANSWER_TAG,
    MAGIC,
    OPENING_TAG,
    PREFACE_BYTES,
    PROOF_TAG,
    VERDICT_MAGIC,
    WANTED_BYTES_MAX,
    Opening,
    Proof,
    Verdict,
)
from tests.unit.security.harness import (
    DEADLINE,
    EVERY_ROLE,
    JOB,
    NODE,
    NODE_2,
    NOW,
    PROTOCOL,
    SECRETS,
    WALL,
    WORKER,
    B,
    preface,
    terms,
    unpickled,
)

Outcome = str
RING = SECRETS.keyring()
KEY = RING.pick(KeyKind.NODE)
STRANGERS: tuple[Key, ...] = (Secrets(B).keyring().pick(KeyKind.NODE), RING.pick(KeyKind.JOB, JOB), RING.pick(KeyKind.JOIN, "t"))
BEGINNINGS = (
    MAGIC, VERDICT_MAGIC, bytes([OPENING_TAG]), bytes([ANSWER_TAG]), bytes([PROOF_TAG]), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01",
    pickle.dumps(print), b"",
)  # fmt: skip


class Finding(Exception):
    """A reader did what it must not do."""


class Reader:
    """One of the four machines that read from strangers, as functions."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.opening = b""
        sent = preface(NODE_2)
        if name == "preface":
            reader = PrefaceReader(protocol_version=PROTOCOL, wall_time=WALL, deadline=DEADLINE, plain_allowed=True)
            self.receive: Callable[[bytes, float], bytes] = reader.receive
            self.held: Callable[[], int] = lambda: reader.held
            self.admitted: Callable[[], bool] = lambda: False
        elif name == "reply":
            reply = PrefaceReply(preface(NODE_2, tls=True), deadline=DEADLINE)
            self.receive, self.held, self.admitted = reply.receive, lambda: reply.held, lambda: False
        elif name == "acceptor":
            acceptor = Acceptor(terms(NODE_2, RING, rng.getrandbits(32)), sent, BARE, wall_time=WALL, deadline=DEADLINE)
            self.receive, self.held = acceptor.receive, lambda: acceptor.held
            self.admitted = lambda: acceptor.done or acceptor.peer is not None
        else:
            mine = terms(NODE, Keyring(keys=(KEY,)), rng.getrandbits(32))
            connector = Connector(mine, KEY, sent, BARE, Expected(EVERY_ROLE), deadline=DEADLINE)
            self.opening = connector.outgoing()
            self.receive, self.held = connector.receive, lambda: connector.held
            self.admitted = lambda: connector.done or connector.may_send


READERS = ("preface", "reply", "acceptor", "connector")


def honest(rng: random.Random) -> list[bytes]:
    """What honest processes have said to one another, as an eavesdropper has it, and what a stranger says that knows the forms."""
    sent = preface(NODE_2)
    connector = Connector(
        terms(NODE, Keyring(keys=(KEY,)), rng.getrandbits(32)), KEY, sent, BARE, Expected(EVERY_ROLE), deadline=DEADLINE
    )
    acceptor = Acceptor(terms(NODE_2, RING, rng.getrandbits(32)), sent, BARE, wall_time=WALL, deadline=DEADLINE)
    said = [sent.encode(), connector.outgoing()]
    acceptor.receive(said[-1], NOW)
    said.append(acceptor.outgoing())
    connector.receive(said[-1], NOW)
    said.append(connector.outgoing())
    acceptor.receive(said[-1], NOW)
    said.append(acceptor.outgoing())
    stranger = rng.choice(STRANGERS)
    party = rng.choice([NODE, NODE_2, WORKER])
    return [*said, Opening(party, stranger.id, rng.randbytes(32)).encode(), Proof(rng.randbytes(32)).encode(), Verdict(8, 1, WALL).encode()]


def parts(rng: random.Random, reader: str, said: list[bytes]) -> list[bytes]:
    """What one connection brings: often what this reader expects next, and often nearly so."""
    expected = said[:1] if reader == "preface" else said[1:4:2] + said[5:7] if reader == "acceptor" else said[2:5:2] + said[7:]
    found: list[bytes] = []
    for number in range(rng.randint(1, 4)):
        choice = rng.random()
        if choice < 0.4:
            part = bytearray(expected[number % len(expected)])
        elif choice < 0.6:
            part = bytearray(rng.choice(expected))
        elif choice < 0.8:
            part = bytearray(rng.choice(said))
        else:
            part = bytearray(rng.choice(BEGINNINGS) + rng.randbytes(rng.choice((0, 3, 40, 130))))
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 8))):
            if part:
                part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
        found.append(bytes(part[: rng.randint(0, len(part))] if rng.random() < 0.1 else part))
    return found


def pieces(rng: random.Random, sent: list[bytes]) -> list[bytes]:
    """The same bytes as reads may bring them: as they were sent, or cut anew."""
    if rng.random() < 0.5:
        return sent
    data = b"".join(sent)
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 0, 1, 5))))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def one(reader: Reader, sent: list[bytes], rng: random.Random) -> Outcome:
    """Give what was sent to a reader. Raises Finding."""
    before = len(unpickled)
    outcome = "waits"
    try:
        for piece in pieces(rng, sent):
            reader.receive(piece, NOW)
            if reader.held() >= max(WANTED_BYTES_MAX, PREFACE_BYTES):
                raise Finding(f"{reader.name} keeps {reader.held()} bytes")
    except HandshakeRefused as error:
        outcome = error.code.name.lower()
        if reader.held():
            raise Finding(f"{reader.name} keeps {reader.held()} bytes of one it has refused") from error
    if reader.admitted():
        raise Finding(f"{reader.name} admits a stranger")
    if len(unpickled) != before:
        raise Finding(f"{reader.name} has unpickled {unpickled[before:]}")
    return f"{reader.name}: {outcome}"


def fuzz(seed: int, iterations: int) -> Counter[Outcome]:
    """How many inputs ended how. Raises Finding, with the seed, the number of the input and its bytes."""
    outcomes: Counter[Outcome] = Counter()
    said = honest(random.Random(seed))
    for number in range(iterations):
        rng = random.Random(f"{seed}/{number}")
        if number % 100 == 0:
            said = honest(rng)
        reader = Reader(READERS[number % len(READERS)], rng)
        sent = parts(rng, reader.name, said)
        try:
            outcomes[one(reader, sent, rng)] += 1
        except Exception as error:
            raise Finding(f"seed {seed}, input {number}, {reader.name}, {[part.hex() for part in sent]}: {error!r}") from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description="What strangers send, against the handshake.")
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outcomes = fuzz(options.seed, options.iterations)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9} {outcome}")
    print(f"seed {options.seed}: {options.iterations} inputs, nobody admitted, {len(unpickled)} objects unpickled")


if __name__ == "__main__":
    main()
