"""Messages with the bytes of chunks between them, cut anywhere."""

from __future__ import annotations

import random
from typing import Any

import pytest

from actorflow._core.io.bulk import BulkReader
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.framing import FRAME_BYTES_MAX
from actorflow._core.protocol.messages import AnyMessage, Chunk, Holding


class Fake:
    """Peer, handler and sink in one: what they are told, in order."""

    def __init__(self) -> None:
        self.lost = False
        self.story: list[Any] = []
        self.memory = bytearray(100_000)
        self.wanted = True
        self.asked = 0

    def messages_received(self, peer: Any, messages: list[AnyMessage]) -> None:
        self.story += messages

    def place(self, peer: Any, chunk: Chunk) -> memoryview | None:
        self.asked += 1
        return memoryview(self.memory)[: chunk.length] if self.wanted else None

    def received(self, peer: Any, chunk: Chunk) -> None:
        self.story.append((chunk.index, bytes(self.memory[: chunk.length])))

    def give_up(self, reason: str) -> None:
        self.lost = True
        self.story.append(reason)


def reader(fake: Any, rest: bytes = b"") -> BulkReader:
    return BulkReader(fake, fake, fake, rest)


def chunk(index: int, length: int) -> Chunk:
    return Chunk("home", 1, 2, index, length)


@pytest.mark.parametrize("seed", range(20))
def test_bk_2_all_is_told_in_order_however_it_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    wire, told = b"", []
    for number in range(30):
        if rng.random() < 0.5:
            messages = [Holding(f"{number}.{i}") for i in range(rng.randint(1, 3))]
            wire += encode(messages)
            told += messages
        else:
            data = rng.randbytes(rng.choice([1, 10, 70_000]))
            wire += encode([Holding("before"), chunk(number, len(data))]) + data
            told += [Holding("before"), (number, data)]
    fake = Fake()
    cut = rng.randint(0, 40)
    bulk = reader(fake, wire[:3])
    at = 3
    while at < len(wire):
        place = bulk.place()
        if place is not None and rng.random() < 0.5:  # As a socket does that reads to the place.
            count = min(rng.randint(1, 50_000), len(place), len(wire) - at)
            place[:count] = wire[at : at + count]
            bulk.placed(count)
        else:
            count = min(rng.choice([1, 2, cut + 1, 30_000]), len(wire) - at)
            bulk.data_received(wire[at : at + count])
        at += count
    assert fake.story == told


def test_bk_1_what_loses_its_place_is_read_and_dropped() -> None:
    fake = Fake()
    bulk = reader(fake)
    bulk.data_received(encode([chunk(0, 50_000)]) + b"a" * 10_000)
    fake.wanted = False
    asked = fake.asked
    bulk.data_received(b"b" * 30_000)
    assert fake.asked > asked, "it is asked for again"
    assert fake.memory[:10_000] == b"a" * 10_000
    assert not any(fake.memory[10_000:])
    bulk.data_received(b"c" * 10_000 + encode([Holding("after")]))
    assert fake.story[-1] == Holding("after"), "and the bytes are not taken for messages"


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        ((FRAME_BYTES_MAX + 1).to_bytes(4, "little"), "announced a frame"),
        (encode([chunk(0, 5), Holding("x")]), "other messages come before its bytes"),
        (encode([chunk(0, 0)]), "a chunk of 0 bytes"),
        (b"\3\0\0\0abc", "not a list of actorflow messages"),
    ],
    ids=["size", "order", "empty", "nonsense"],
)
def test_nonsense_ends_the_connection(wire: bytes, words: str) -> None:
    fake = Fake()
    reader(fake).data_received(wire)
    assert fake.lost
    assert words in fake.story[-1]
