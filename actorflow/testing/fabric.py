"""The network of a world as a whole: who is linked with whom, who listens where, and the faults."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from actorflow.testing.links import Link, LinkProfile
from actorflow.testing.misuse import check_group

if TYPE_CHECKING:
    from actorflow.testing.host import Host
    from actorflow.testing.network import SimListener, SimStream
    from actorflow.testing.world import World

Group = Iterable["Host | str"]
"""Hosts, names of hosts, or names of machines."""


class Fabric:
    """All addresses, links and open connections. `World.fabric`."""

    def __init__(self, world: World, profile: LinkProfile) -> None:
        self.world = world
        self.profile = profile
        self._addresses: dict[str, SimListener] = {}
        self._links: dict[tuple[int, int], tuple[Host, Host, Link]] = {}
        self._connections: dict[int, tuple[SimStream, SimStream]] = {}
        self._partitions: list[tuple[list[str], list[str]]] = []
        self._one_way: list[tuple[list[str], list[str]]] = []
        """From the first to the second nothing passes, while the way back is open."""
        self._numbers = 0

    # -- addresses

    def place(self, address: str, machine: str) -> str:
        """The key of an address: a unix socket exists on one machine, everything else everywhere."""
        return f"{machine} {address}" if address.startswith("unix:") else address

    def bind(self, key: str, listener: SimListener) -> bool:
        """Give an address to a listener; False when it is taken."""
        holder = self._addresses.get(key)
        if holder is not None and (holder.open or key.count("unix:")):
            return False  # the socket file of a dead process is in the way too
        self._addresses[key] = listener
        return True

    def unbind(self, key: str, listener: SimListener) -> None:
        """The listener was closed in order: the address is free."""
        if self._addresses.get(key) is listener:
            del self._addresses[key]

    def remove_file(self, address: str, machine: str) -> None:
        """Remove what a dead process has left at an address, as its successor does."""
        key = self.place(address, machine)
        listener = self.listener(key)
        if listener is not None and not listener.host.alive:
            self.unbind(key, listener)

    def listener(self, key: str) -> SimListener | None:
        """Who is bound there. It may be dead: a killed process leaves its socket file behind."""
        return self._addresses.get(key)

    def addresses(self) -> list[str]:
        """What is bound, dead or alive, for leak checks."""
        return list(self._addresses)

    # -- links and connections

    def link(self, source: Host, sink: Host) -> Link:
        """The link from one host to another."""
        key = (source.index, sink.index)
        entry = self._links.get(key)
        if entry is None:
            link = Link(self.profile, random.Random(f"{self.world.seed}/link/{source.name}/{sink.name}"))
            link.cut = self._is_cut(source, sink)
            entry = self._links[key] = (source, sink, link)
        return entry[2]

    def connected(self, first: SimStream, second: SimStream) -> int:
        """Note a new connection; return its number."""
        self._numbers += 1
        self._connections[self._numbers] = (first, second)
        return self._numbers

    def closed(self, number: int) -> None:
        """One end of a connection is gone; when both are, it is forgotten."""
        ends = self._connections.get(number)
        if ends is not None and ends[0].closed and ends[1].closed:
            del self._connections[number]

    def connections(self) -> list[tuple[SimStream, SimStream]]:
        """The open connections, oldest first: connecting side, accepting side."""
        return list(self._connections.values())

    # -- faults

    def reset(self, stream: SimStream) -> None:
        """Break a connection: each way a prefix of what is under way arrives, then the loss is seen."""
        peer = stream.peer
        self.world.note(stream.host.name, f"connection {stream.number} with {peer.host.name} is reset")
        stream.outgoing.reset("connection reset by peer")
        peer.outgoing.reset("connection reset by peer")

    def half_open(self, stream: SimStream) -> None:
        """Only `stream` sees a loss; the other end learns of it when it next writes."""
        self.world.note(
            stream.host.name, f"connection {stream.number} with {stream.peer.host.name} is half open"
        )
        stream.peer.outgoing.reset("connection timed out")
        stream.outgoing.mute()

    def delay(self, one: Host, other: Host, extra_s: float) -> None:
        """Make the links between two hosts slower by `extra_s`, until `heal`."""
        self.world.note(one.name, f"link with {other.name} is {extra_s:.6f} s slower")
        self.link(one, other).extra_s = extra_s
        self.link(other, one).extra_s = extra_s

    def partition(self, one: Group, other: Group) -> None:
        """Cut all links between two groups until `heal`: bytes wait, connects time out.

        Also for hosts yet to come, by machine.
        """
        first, second = _names(one), _names(other)
        check_group("partition", self.world, first + second)
        self.world.note("network", f"partition between {', '.join(first)} and {', '.join(second)}")
        self._partitions.append((first, second))
        self._cut()

    def cut_one_way(self, sources: Group, sinks: Group) -> None:
        """Cut the links from some to others, and leave those back: bytes wait one way, and connects time out both ways. Until `heal`."""
        first, second = _names(sources), _names(sinks)
        check_group("cut_one_way", self.world, first + second)
        self.world.note("network", f"nothing passes from {', '.join(first)} to {', '.join(second)}")
        self._one_way.append((first, second))
        self._cut()

    def _cut(self) -> None:
        for source, sink, link in self._links.values():
            link.cut = self._is_cut(source, sink)

    def heal(self) -> None:
        """End all partitions and delays; what waited is delivered."""
        self.world.note("network", "healed")
        self._partitions.clear()
        self._one_way.clear()
        for _, _, link in self._links.values():
            link.cut = False
            link.extra_s = 0.0
        for first, second in self.connections():
            first.outgoing.wake()
            second.outgoing.wake()

    def _is_cut(self, source: Host, sink: Host) -> bool:
        return any(
            (_within(source, one) and _within(sink, other)) or (_within(source, other) and _within(sink, one))
            for one, other in self._partitions
        ) or any(_within(source, one) and _within(sink, other) for one, other in self._one_way)


def _names(group: Group) -> list[str]:
    return [member if isinstance(member, str) else member.name for member in group]


def _within(host: Host, names: list[str]) -> bool:
    return host.name in names or host.machine in names
