"""Valid frames, damaged at random, against everything that reads bytes from a peer.

    python -m tests.fuzz.fuzz_frames --iterations 1000000 --seed 7

Whatever comes in, the reader returns messages or raises ProtocolError, within a moment, and takes memory in proportion to the input. The
same seed does the same; a finding is printed with its bytes.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import time
import tracemalloc
import types
import typing
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import PROTOCOL_VERSION, decode, encode
from actorflow._core.protocol.framing import FRAME_BYTES_MAX, HEADER_BYTES, FrameDecoder, frame
from actorflow._core.protocol.messages import AnyMessage, Hello, Welcome
from actorflow._core.protocol.session import Identity, Session

KINDS: tuple[type[Any], ...] = typing.get_args(AnyMessage)
MEMORY_FACTOR_MAX = 128
"""Bytes taken for each byte of input: an empty list is one byte on the wire and some sixty in memory."""
MEMORY_BASE_BYTES = 64 * 1024
SECONDS_MAX = 5.0
"""For one input. A read takes microseconds; a machine under load may stop for a while."""
HANG_S = 120.0
"""When so many inputs as WATCHED take this long, one of them hangs: the program ends with a traceback."""
WATCHED = 1_000

SIZES = (0, 1, 0x7F, 0xFF, 0xFFFF, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 0x7FFF_FFFF, 0xFFFF_FFFF)
LONG = tuple(marker + size.to_bytes(4, "big") for marker in (b"\xc6", b"\xc9", b"\xdb", b"\xdd", b"\xdf") for size in SIZES)
"""MessagePack's headers of long bytes, extensions, texts, lists and maps."""

Outcome = str


class Finding(Exception):
    """A reader did what it must not do."""


# Valid messages ---------------------------------------------------------------------------------------------


def message(rng: random.Random) -> Any:
    """A message of any kind with any content."""
    return _struct(rng.choice(KINDS), rng)


def _struct(kind: Any, rng: random.Random) -> Any:
    return kind(*[_value(hint, rng) for hint in _hints(kind)])


@cache
def _hints(kind: Any) -> list[Any]:
    hints = typing.get_type_hints(kind)
    return [hints[name] for name in kind.__struct_fields__]


def _value(kind: Any, rng: random.Random) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _value(rng.choice(arguments), rng)
    if origin is list:
        return [_value(arguments[0], rng) for _ in range(rng.randrange(4))]
    if origin is tuple:
        return tuple([_value(argument, rng) for argument in arguments])
    if origin is dict:
        return {_value(arguments[0], rng): _value(arguments[1], rng) for _ in range(rng.randrange(3))}
    if issubclass(kind, msgspec.Struct):
        return _struct(kind, rng)
    return SCALARS[kind](rng)


SCALARS: dict[Any, Callable[[random.Random], Any]] = {
    int: lambda rng: rng.choice((-1, 1)) * rng.getrandbits(rng.choice((1, 7, 16, 31, 63))),
    str: lambda rng: "".join(rng.choices("az09-:/é\u4e2d\U0001f600", k=rng.choice((0, 1, 5, 40)))),
    bytes: lambda rng: rng.randbytes(rng.choice((0, 1, 20, 300))),
    bool: lambda rng: rng.random() < 0.5,
    float: lambda rng: rng.uniform(-1e6, 1e6),
    type(None): lambda rng: None,
}


# Damage -----------------------------------------------------------------------------------------------------


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change a few places."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 4, 16)))
        data = rng.choice(DAMAGES)(data, at, end, rng)
    return data


Damage = Callable[[bytes, int, int, random.Random], bytes]
DAMAGES: tuple[Damage, ...] = (
    lambda data, at, end, rng: data[:at] + rng.randbytes(end - at) + data[end:],
    lambda data, at, end, rng: data[:at] + rng.randbytes(rng.choice((1, 2, 9))) + data[at:],
    lambda data, at, end, rng: data[:at] + data[end:],
    lambda data, at, end, rng: data[:end] + data[at:],
    lambda data, at, end, rng: data[:at],
    lambda data, at, end, rng: data[:at] + rng.choice(LONG) + data[end:],
    lambda data, at, end, rng: data[:at] + rng.choice((b"\x91", b"\x81\x00", b"\xc0")) * rng.choice((1, 50, 5_000)) + data[at:],
    lambda data, at, end, rng: rng.choice(SIZES).to_bytes(HEADER_BYTES, "little") + data[HEADER_BYTES:],
)


# Readers ----------------------------------------------------------------------------------------------------


def read_body(data: bytes, rng: random.Random) -> list[Any]:
    """The codec alone."""
    return list(decode(data))


def read_frames(data: bytes, rng: random.Random) -> list[Any]:
    """Framing and codec, cut anywhere."""
    decoder = FrameDecoder()
    return [message for chunk in cut(data, rng) for body in decoder.feed(chunk) for message in decode(body)]


def read_session(data: bytes, rng: random.Random) -> list[Any]:
    """A whole session, before or after its handshake."""
    me = Identity("node", "n", address="unix:/n")
    session = Session(me, acceptor=rng.random() < 0.5)
    if rng.random() < 0.7:
        greeting = Hello(PROTOCOL_VERSION, "worker", "w", "", "") if session.acceptor else Welcome("n", "node")
        session.receive(encode([greeting]))
    try:
        return [message for chunk in cut(data, rng) for message in session.receive(chunk)]
    except ProtocolError as error:
        expect_dead(session, error)
        raise
    finally:
        session.outgoing()


def expect_dead(session: Session, error: ProtocolError) -> None:
    """SE-2."""
    try:
        session.receive(b"")
    except ProtocolError as again:
        if again is error:
            return
    raise Finding("a session went on after an error")


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    edges = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 3))))
    return [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]


Reader = Callable[[bytes, random.Random], list[Any]]
READERS: tuple[Reader, ...] = (read_body, read_frames, read_session)


# Rounds -----------------------------------------------------------------------------------------------------


def attempt(reader: Reader, data: bytes, rng: random.Random) -> Outcome:
    """Let a reader have the bytes; raise Finding when it does anything but return messages or raise ProtocolError."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    start = time.perf_counter()
    try:
        messages = reader(data, rng)
    except ProtocolError:
        outcome = "refused"
    except Exception as error:
        raise Finding(f"{reader.__name__} raised {type(error).__name__}: {error}") from error
    else:
        outcome = "messages" if messages else "nothing"
        if not all(isinstance(message, KINDS) for message in messages):
            raise Finding(f"{reader.__name__} returned {messages}")
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    if peak - before > MEMORY_BASE_BYTES + MEMORY_FACTOR_MAX * len(data):
        raise Finding(f"{reader.__name__} took {peak - before} bytes of memory")
    if seconds > SECONDS_MAX:
        raise Finding(f"{reader.__name__} took {seconds:.1f} s")
    return outcome


def fuzz(seed: int, iterations: int) -> Counter[Outcome]:
    """Run; return how often which outcome was seen. Raises Finding with everything that is needed to see it again."""
    rng = random.Random(seed)
    outcomes: Counter[Outcome] = Counter()
    tracemalloc.start()
    try:
        for number in range(iterations):
            batch = [message(rng) for _ in range(rng.choice((1, 1, 2, 5)))]
            reader = rng.choice(READERS)
            framed = encode(batch)
            data = damage(framed[HEADER_BYTES:], rng)
            if reader is not read_body:
                # Half of the damage stays inside of a frame whose length is right; the other half meets the lengths too.
                data = frame(data) + framed if rng.random() < 0.5 else damage(framed + framed, rng)
            if number % WATCHED == 0:
                faulthandler.dump_traceback_later(HANG_S, exit=True)
            try:
                outcomes[attempt(reader, data, rng)] += 1
            except Finding as finding:
                raise Finding(f"seed {seed}, iteration {number}: {finding}, from {len(data)} bytes: {data.hex()}") from finding
    finally:
        faulthandler.cancel_dump_traceback_later()
        tracemalloc.stop()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description="Damaged frames against the decoder.")
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outcomes = fuzz(options.seed, options.iterations)
    print(f"seed {options.seed}: {options.iterations} inputs, {dict(outcomes)}")


if __name__ == "__main__":
    main()
