"""The wires between simulated processes: how long bytes take, how they are cut, and what faults a link has.

A `Pipe` is one direction of a connection. It behaves as a socket pair does:

PI-1: bytes arrive in order, once, cut anywhere; what arrived together may be delivered together. PI-2: at
most `buffer_bytes` are under way; what is written beyond waits at the sender, where `buffered_bytes`
counts it. PI-3: after an orderly close or the death of the sender, all bytes under way arrive, then the
end is seen. PI-4: after a reset, a prefix of the bytes under way arrives, then the end is seen.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actorflow.testing.loop import SimTimer

if TYPE_CHECKING:
    from actorflow.testing.network import SimStream
    from actorflow.testing.world import World


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """How the links of a world behave. The default is a busy machine with unix sockets."""

    latency_min_s: float = 0.000_02
    latency_max_s: float = 0.000_3
    """Each link draws its own base between the two; every write adds up to as much again."""
    spike_chance: float = 0.01
    spike_max_s: float = 0.05
    cut_chance: float = 0.2
    """How often a delivery is cut in two at a random byte."""
    buffer_bytes: int = 208 * 1024
    """As the kernel's socket buffer: see PI-2."""
    connect_timeout_s: float = 5.0
    """How long a connect waits on a link that is cut."""


class Link:
    """All connections from one host to another: their latency and their faults."""

    __slots__ = ("_base_s", "_random", "cut", "extra_s", "profile")

    def __init__(self, profile: LinkProfile, rng: random.Random) -> None:
        self.profile = profile
        self._random = rng.random
        self._base_s = rng.uniform(profile.latency_min_s, profile.latency_max_s)
        self.extra_s = 0.0
        """Added to every latency: a slow link."""
        self.cut = False
        """True while nothing passes: bytes wait, connects time out."""

    def latency_s(self) -> float:
        """Draw how long the next bytes take."""
        draw, profile = self._random, self.profile
        latency_s = self._base_s * (1.0 + draw())
        if draw() < profile.spike_chance:
            latency_s += draw() * profile.spike_max_s
        return latency_s + self.extra_s

    def cut_at(self, size: int) -> int:
        """Draw how many of `size` bytes are delivered first: mostly all."""
        if size < 2 or self._random() >= self.profile.cut_chance:
            return size
        return 1 + int(self._random() * (size - 1))

    def prefix(self, size: int) -> int:
        """Draw how many of `size` bytes survive a reset: none to all."""
        return int(self._random() * (size + 1))


class Pipe:
    """One direction of a connection, from a sending stream to a receiving one."""

    __slots__ = (
        "_arrival", "_timer", "_world", "backlog", "backlog_bytes", "end_reason", "flight", "flight_bytes",
        "link", "muted", "sink", "source",
    )  # fmt: skip

    def __init__(self, world: World, link: Link, source: SimStream, sink: SimStream, opens_at: float) -> None:
        self._world = world
        self.link = link
        self.source = source
        self.sink = sink
        self.flight: deque[tuple[float, bytes]] = deque()
        self.flight_bytes = 0
        self.backlog: deque[bytes] = deque()
        self.backlog_bytes = 0
        self.end_reason = ""
        """Set once nothing more enters; what the receiver is told after the last byte."""
        self.muted = False
        """True when the sender is gone and the receiver is not told: half open."""
        self._arrival = opens_at
        self._timer: asyncio.TimerHandle | None = None

    # -- the sender's side

    def send(self, data: bytes) -> None:
        """Take bytes from the sender."""
        if self.end_reason:
            answer = self.sink.outgoing
            if answer.muted:
                answer.unmute("connection reset by peer")
            return
        room = self.link.profile.buffer_bytes - self.flight_bytes
        if self.backlog or len(data) > room:
            if not self.backlog and room > 0:
                self._launch(data[:room])
                data = data[room:]
            self.backlog.append(data)
            self.backlog_bytes += len(data)
        else:
            self._launch(data)

    def end(self, reason: str) -> None:
        """Nothing more is sent: an orderly close, or the death of the sender.

        What still waits at the sender is lost.
        """
        if self.end_reason:
            return
        self.end_reason = reason
        self._drop_backlog()
        self._reserve_arrival()
        if not self.flight and self._timer is None:
            self._schedule(self._arrival)

    def reset(self, reason: str) -> None:
        """Lose the connection in the middle of what is under way (PI-4)."""
        if self.end_reason:
            return
        keep = self.link.prefix(self.flight_bytes)
        kept: deque[tuple[float, bytes]] = deque()
        self.flight_bytes = 0
        for arrival, data in self.flight:
            if keep > 0:
                data = data[:keep]
                keep -= len(data)
                kept.append((arrival, data))
                self.flight_bytes += len(data)
        self.flight = kept
        self.end(reason)

    def mute(self) -> None:
        """The sender vanished without a word: nothing more arrives, and no end is seen."""
        self.muted = True
        self.end_reason = "vanished"
        self.forget()

    def unmute(self, reason: str) -> None:
        """The receiver wrote to the vanished sender, whose machine is up, and is told now."""
        self.muted = False
        self.end_reason = reason
        self._reserve_arrival()
        self._schedule(self._arrival)

    def forget(self) -> None:
        """The receiver is gone: whatever is under way is lost, and nothing will be delivered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flight.clear()
        self.flight_bytes = 0
        self._drop_backlog()

    def _drop_backlog(self) -> None:
        self.backlog.clear()
        self.backlog_bytes = 0

    def _launch(self, data: bytes) -> None:
        self._reserve_arrival()
        self.flight.append((self._arrival, data))
        self.flight_bytes += len(data)
        if self._timer is None:
            self._schedule(self._arrival)

    def _reserve_arrival(self) -> None:
        arrival = self._world.now + self.link.latency_s()
        if arrival > self._arrival:
            self._arrival = arrival

    # -- the receiver's side

    def _schedule(self, when: float) -> None:
        sink = self.sink
        if sink.closed or not sink.host.alive or self.muted:
            return
        loop = sink.host.loop
        self._timer = SimTimer(when, self._arrive, (), loop, sink.host.context)
        self._world.add_timer(when, self._timer)

    def wake(self) -> None:
        """The link works again: deliver what waited."""
        if self._timer is None and (self.flight or self.end_reason):
            self._schedule(self._world.now + self.link.latency_s())

    def _arrive(self) -> None:
        self._timer = None
        if self.link.cut or self.sink.closed:
            return
        data = self._take(self._world.now)
        if not data:
            if self.end_reason and not self.flight:
                self.sink.lost(self.end_reason)
            elif self.flight:
                self._schedule(self.flight[0][0])
            return
        if self.flight:
            self._schedule(self.flight[0][0])
        elif self.end_reason:
            self._schedule(max(self._arrival, self._world.now))
        if self.backlog:
            self._refill()
        self.sink.deliver(data)

    def _take(self, now: float) -> bytes:
        flight = self.flight
        if not flight or flight[0][0] > now:
            return b""
        data = flight.popleft()[1]
        if flight and flight[0][0] <= now:
            parts = [data]
            while flight and flight[0][0] <= now:
                parts.append(flight.popleft()[1])
            data = b"".join(parts)
        size = self.link.cut_at(len(data))
        if size < len(data):
            flight.appendleft((now + self.link.latency_s(), data[size:]))
            data = data[:size]
        self.flight_bytes -= size
        return data

    def _refill(self) -> None:
        room = self.link.profile.buffer_bytes - self.flight_bytes
        while self.backlog and room > 0:
            data = self.backlog.popleft()
            if len(data) > room:
                self.backlog.appendleft(data[room:])
                data = data[:room]
            self.backlog_bytes -= len(data)
            room -= len(data)
            self._launch(data)
        if not self.backlog:
            self.source.drained()
