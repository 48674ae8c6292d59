from __future__ import annotations

import random
from collections import deque

import pytest

from actorflow._core.policy.part_window import (
    FASTEST_KEPT_S,
    PART_BYTES_MAX,
    PART_BYTES_MIN,
    QUEUE_S,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    PartQueue,
    PartWindow,
)

MIB = 1024 * 1024


class Way:
    """A link that carries `rate` bytes in a second behind a delay, and what is sent over it by one queue."""

    def __init__(self, queue: PartQueue, rate: float, delay_s: float) -> None:
        self.queue = queue
        self.rate = rate
        self.delay_s = delay_s
        self.now = 50.0
        self._free_at = 0.0
        self._coming: deque[tuple[float, int]] = deque()
        self.pieces: list[tuple[float, int, int]] = []
        self.done: list[int] = []
        self.most = 0
        self.longest_s = 0.0

    def run(self, until: float = float("inf")) -> None:
        """Until nothing is left."""
        while True:
            while (piece := self.queue.next(self.now)) is not None:
                self.pieces.append((self.now, piece.key, piece.length))
                window = self.queue.window
                assert window.under_way <= window.bytes or window.under_way == piece.length, "PW-1"
                assert PART_BYTES_MIN <= piece.length <= PART_BYTES_MAX or piece.last
                self._free_at = max(self._free_at, self.now) + piece.length / self.rate
                self._coming.append((self._free_at + self.delay_s, self.queue.window.sent))
                self.longest_s = max(self.longest_s, self._free_at - self.now)
            self.most = max(self.most, self.queue.window.under_way)
            if not self._coming or self.now >= until:
                return
            self.now, taken = self._coming.popleft()
            self.done += self.queue.take(taken, self.now)


@pytest.mark.parametrize("rate_mib", [1, 30, 300, 3000])
@pytest.mark.parametrize("delay_s", [0.0001, 0.002, 0.05])
def test_a_window_is_as_large_as_the_way_needs_and_no_larger(rate_mib: int, delay_s: float) -> None:
    queue = PartQueue()
    way = Way(queue, rate_mib * MIB, delay_s)
    size = max(rate_mib * 3, 8) * MIB
    queue.begin(1, size)
    way.run()
    assert way.done == [1]
    assert sum(length for _, _, length in way.pieces) == size
    assert way.most <= WINDOW_BYTES_MAX, "PW-1"
    possible = min(1.0, WINDOW_BYTES_MAX / (rate_mib * MIB * (delay_s + 0.001)))
    took_s = way.now - 50.0
    assert size / (rate_mib * MIB) / took_s > 0.5 * possible, "the way is used"
    # What is said behind the parts waits for those that are in the way's queue: two of a smallest window, where the way is that slow.
    assert way.longest_s < 8 * QUEUE_S + 2 * WINDOW_BYTES_MIN / way.rate


def test_it_shrinks_when_the_way_becomes_slow_and_grows_again() -> None:
    queue = PartQueue()
    way = Way(queue, 400 * MIB, 0.001)
    queue.begin(1, 10_000 * MIB)
    way.run(51.0)
    fast = queue.window.bytes
    way.rate = 10 * MIB
    way.run(55.0)
    slow = queue.window.bytes
    assert slow <= 2 * WINDOW_BYTES_MIN < fast
    assert queue.window.part_bytes == PART_BYTES_MIN
    way.rate = 400 * MIB
    way.run(60.0)
    assert queue.window.bytes > fast / 3


def test_another_way_with_a_longer_delay_is_the_new_measure_after_a_while() -> None:
    queue = PartQueue()
    way = Way(queue, 100 * MIB, 0.0005)
    queue.begin(1, 100_000 * MIB)
    way.run(51.0)
    way.delay_s = 0.1
    way.run(52.0)
    assert queue.window.bytes == WINDOW_BYTES_MIN
    way.run(52.0 + 3 * FASTEST_KEPT_S)
    assert queue.window.bytes > 4 * MIB


def test_pw_2_values_take_turns() -> None:
    queue = PartQueue()
    way = Way(queue, 100 * MIB, 0.001)
    queue.begin(1, 200 * MIB)
    way.run(51.0)
    queue.begin(2, 1 * MIB)
    before = way.now
    way.run(51.2)
    assert way.done == [2]
    queue.drop(1)
    way.run()
    assert way.now - before < 0.5
    keys = [key for at, key, _ in way.pieces if at >= before and key in (1, 2)]
    assert keys[:6].count(2) == 3


def test_pw_3_what_was_dropped_is_under_way_until_it_is_taken() -> None:
    queue = PartQueue()
    sent = 0
    for key in range(1000):
        queue.begin(key, MIB)
        while (piece := queue.next(1.0)) is not None:
            sent += piece.length
        queue.drop(key)
    assert sent == queue.window.under_way <= WINDOW_BYTES_MIN
    assert len(queue) == 0
    assert queue.take(sent, 1.1) == []
    assert queue.window.under_way == 0


def test_a_part_is_sent_when_nothing_is_under_way() -> None:
    window = PartWindow()
    assert window.has_room(100 * WINDOW_BYTES_MAX)
    window.add(1, 0.0)
    assert not window.has_room(100 * WINDOW_BYTES_MAX)


@pytest.mark.parametrize("taken", [-1, 99, 101])
def test_what_cannot_be_taken_is_refused(taken: int) -> None:
    queue = PartQueue()
    queue.begin(7, 100)
    assert queue.next(0.0) == (7, 0, 100, True)
    if taken != 99:
        with pytest.raises(ValueError, match=f"{taken} bytes of parts are said to be taken, of 100 that were sent; 0 were before"):
            queue.take(taken, 0.0)
        return
    assert queue.take(99, 0.0) == []
    with pytest.raises(ValueError, match="99 were before"):
        queue.take(98, 0.0)
    assert queue.take(100, 0.0) == [7]


def test_random_histories() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        queue, now, begun, got, dropped = PartQueue(), 0.0, 0, [], set()
        sizes: dict[int, int] = {}
        have: dict[int, int] = {}
        for _ in range(300):
            now += rng.random() * 0.01
            match rng.randrange(4):
                case 0 if begun < 12:
                    begun += 1
                    sizes[begun] = rng.choice([1, PART_BYTES_MIN, 3 * MIB, rng.randrange(1, 9 * MIB)])
                    queue.begin(begun, sizes[begun])
                case 1 if rng.random() < 0.1 and begun:
                    key = rng.randint(1, begun)
                    dropped.add(key)
                    queue.drop(key)
                case 2:
                    while (piece := queue.next(now)) is not None:
                        assert have.get(piece.key, 0) == piece.start, "in order"
                        have[piece.key] = piece.start + piece.length
                        assert piece.last == (have[piece.key] == sizes[piece.key])
                        assert queue.window.under_way <= WINDOW_BYTES_MAX, "PW-1"
                case _:
                    got += queue.take(rng.randint(queue.window.taken, queue.window.sent), now)
        while queue.window.under_way or len(queue):
            got += queue.take(queue.window.sent, now)
            while (piece := queue.next(now)) is not None:
                have[piece.key] = piece.start + piece.length
        assert len(got) == len(set(got))
        assert {key for key in sizes if have.get(key, 0) == sizes[key]} == set(got)
        assert set(sizes) - set(got) <= dropped
