"""Uploads: what a node serves of its arena, and of its disk, to other nodes. Pure.

A node serves what it has written, its copies, and the beginning of what it is still fetching itself. A few
peers at a time are served with one object; the others are told who has it, or will soon have more of it
than they. So a broadcast makes itself a chain, or for a small object a tree, and the first node sends it little
more than once.

UP-1: uploads are bounded, for each object and in all, and so are the chunks that are being sent, for each peer and in all.
UP-2: an extent is held from the first chunk of an upload until no byte of it is needed, and let go of exactly once.
UP-3: only who is behind this node is served by it. As everybody has one source and its chunks come in order, no node
      ever waits for itself, by way of however many others. Who is level waits a bounded time.
UP-4: the chunks of an upload are sent once each, in order, and none that was not asked for.
UP-5: peers take turns by the chunk.
UP-6: a request is served, refused, or kept until there is a place, and its peer told so. To make a place a peer is sent to others once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from actorflow._core.base.ids import ProcessId
from actorflow._core.policy.transfer_records import (
    CHUNK_BYTES,
    Again,
    Cut,
    Held,
    Hold,
    LetGo,
    ObjectName,
    Refusal,
    Refuse,
    Request,
    Send,
    StillHere,
    UploadDecision,
    chunk_length,
    chunks_of,
)

OTHERS_MAX = 3
"""A peer is told the names of so many others."""
LEVEL_S = 3.0
"""A peer that has as much as this node waits so long for it to get ahead."""
KEEP_S = 1.0
"""So often a peer that waits is told that it is not forgotten."""
SLOW_S = 0.25
"""A peer that takes longer for one chunk is slow: it does not keep others from being served, and others are not sent to it."""
CROWD_S = 30.0
"""Who has got an object from here is remembered so long after the last of them."""
CROWDS_MAX = 1000
CROWD_PEERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The bounds of all uploads of a node."""

    uploads_max: int = 32
    """Uploads at a time."""
    of_object_max: int = 4
    """Uploads of one object at a time, slow ones and such as came back from others included."""
    large_chunks: int = 16
    """From so many chunks on an object goes through its peers as a chain: each has the whole rate of the one before it. Of
    fewer, the way through a chain takes longer than the object itself, and a tree is better."""
    tree_fan_out: int = 2
    sends_max: int = 16
    """Chunks being sent at a time."""
    sends_of_peer_max: int = 2
    """Of these to one peer: one in the kernel's hands, and the next ready."""
    waiting_max: int = 1000
    """Requests that are kept."""
    chunk_bytes: int = CHUNK_BYTES
    idle_s: float = 10.0
    """A peer that asks for nothing, or takes nothing, for so long is dropped."""


class _Upload:
    """One object on its way to one peer."""

    __slots__ = (
        "attempt", "chunks", "closing", "extent", "have", "moved_at", "name", "next", "number", "on_disk", "peer", "sending", "size",
        "slow", "told_at", "upto",
    )  # fmt: skip

    def __init__(self, number: int, request: Request, held: Held, chunks: int, now: float) -> None:
        self.number = number
        self.peer = request.peer
        self.name = request.name
        self.attempt = request.attempt
        self.extent = held.extent
        self.on_disk = held.on_disk
        self.size = held.size
        self.chunks = chunks
        self.have = held.chunks
        """So many chunks are here."""
        self.next = request.first
        """The next chunk to send."""
        self.upto = request.first + request.count
        """The peer has asked for the chunks before this one."""
        self.sending = 0
        self.slow = False
        self.closing = False
        """It ends when nothing is being sent."""
        self.moved_at = now
        """The last time that a chunk went out, or became due."""
        self.told_at = now

    @property
    def ready(self) -> bool:
        return not self.closing and self.next < min(self.upto, self.have)


class _Peer:
    """One that is served: its uploads, in the order of their turns."""

    __slots__ = ("sending", "uploads")

    def __init__(self) -> None:
        self.uploads: OrderedDict[int, _Upload] = OrderedDict()
        self.sending = 0


class _Waiter:
    """A request that is kept. `level`: until this node is ahead of the peer; else until there is a place for it."""

    __slots__ = ("level", "request", "since", "told_at")

    def __init__(self, request: Request, level: bool, now: float) -> None:
        self.request = request
        self.level = level
        self.since = now
        self.told_at = now


class _Crowd:
    """Who asked for one object: peers in the order of their coming, and how many others each was named to."""

    __slots__ = ("done", "peers", "sent_away", "touched_at", "uploads")

    def __init__(self) -> None:
        self.peers: dict[ProcessId, int] = {}
        self.done: set[ProcessId] = set()
        self.sent_away: set[ProcessId] = set()
        """They were told others, and are served when they come back."""
        self.uploads: dict[ProcessId, _Upload] = {}
        """Those that are not closing."""
        self.touched_at = 0.0


class UploadBook:
    """All uploads of a node. The methods are what happens; what they return is to be done, in that order."""

    __slots__ = ("_crowds", "_holds", "_level", "_number", "_peers", "_sends", "_uploads", "_waiters", "limits")

    def __init__(self, limits: UploadLimits | None = None) -> None:
        self.limits = limits or UploadLimits()
        self._number = 0
        self._uploads: dict[int, _Upload] = {}
        self._peers: OrderedDict[ProcessId, _Peer] = OrderedDict()
        """In the order of their turns."""
        self._crowds: OrderedDict[ObjectName, _Crowd] = OrderedDict()
        """Longest unused first."""
        self._waiters: OrderedDict[tuple[ObjectName, ProcessId], _Waiter] = OrderedDict()
        self._level: dict[ObjectName, dict[ProcessId, None]] = {}
        """Who waits for us to get ahead."""
        self._sends = 0
        self._holds = 0
        """Holds less LetGos."""

    # -- requests

    def requested(self, request: Request, held: Held | None, now: float) -> list[UploadDecision]:
        """A peer asks for chunks; the first time, or for more. `held`: what is here of the object at this moment."""
        peer, name = request.peer, request.name
        decisions: list[UploadDecision] = []
        crowd = self._crowds.get(name)
        upload = crowd.uploads.get(peer) if crowd is not None else None
        if upload is not None:
            if request.attempt == upload.attempt:
                return self._more(upload, request, now)
            if request.attempt < upload.attempt:
                return []
            decisions += self._close(upload)
        waiter = self._waiters.get((name, peer))
        if waiter is not None:
            if request.attempt <= waiter.request.attempt:
                return []
            self._forget_waiter(name, peer)
        return [*decisions, *self._begin(request, held, now), *self._wake()]

    def _more(self, upload: _Upload, request: Request, now: float) -> list[UploadDecision]:
        if request.first != upload.upto or request.count <= 0 or upload.upto + request.count > upload.chunks:
            # It does not keep to the order: what it thinks to have is not what we think.
            return [*self._refuse(request, Refusal.GONE), *self._close(upload), *self._wake()]
        if not upload.ready:
            upload.moved_at = now
        upload.upto += request.count
        return self._send(now)

    def _begin(self, request: Request, held: Held | None, now: float) -> list[UploadDecision]:
        """A new upload, or why not (UP-6)."""
        if held is None or request.first < 0 or request.count <= 0:
            return self._refuse(request, Refusal.GONE)
        chunks = chunks_of(held.size, self.limits.chunk_bytes)
        if request.first + request.count > chunks:
            return self._refuse(request, Refusal.GONE)
        crowd = self._crowd(request.name, now)
        if request.peer not in crowd.peers and len(crowd.peers) < CROWD_PEERS_MAX:
            crowd.peers[request.peer] = 0
        if held.chunks < request.first:
            return self._refuse(request, Refusal.BEHIND, self._others(crowd, request, chunks))
        if held.chunks == request.first:
            return self._keep(request, level=True, now=now)
        if not self._has_place(crowd):
            if request.peer in crowd.sent_away:
                return self._keep(request, level=False, now=now)
            others = self._send_away(crowd, request, chunks)
            return self._refuse(request, Refusal.BUSY, others) if others else self._keep(request, level=False, now=now)
        if request.peer not in crowd.sent_away and self._fast(crowd) >= self._fan_out(chunks):
            others = self._send_away(crowd, request, chunks)
            if others:
                return self._refuse(request, Refusal.BUSY, others)
        return self._start(crowd, request, held, chunks, now)

    def _start(self, crowd: _Crowd, request: Request, held: Held, chunks: int, now: float) -> list[UploadDecision]:
        self._number += 1
        upload = _Upload(self._number, request, held, chunks, now)
        self._uploads[upload.number] = crowd.uploads[upload.peer] = upload
        peer = self._peers.get(upload.peer)
        if peer is None:
            peer = self._peers[upload.peer] = _Peer()
        peer.uploads[upload.number] = upload
        self._holds += 1
        return [Hold(upload.number, upload.peer, upload.extent, upload.on_disk), *self._send(now)]

    def _refuse(self, request: Request, why: Refusal, others: tuple[ProcessId, ...] = ()) -> list[UploadDecision]:
        return [Refuse(request.peer, request.name, request.attempt, why, others)]

    def _keep(self, request: Request, *, level: bool, now: float) -> list[UploadDecision]:
        if len(self._waiters) >= self.limits.waiting_max:
            return self._refuse(request, Refusal.BEHIND if level else Refusal.BUSY)
        self._waiters[request.name, request.peer] = _Waiter(request, level, now)
        if level:
            self._level.setdefault(request.name, {})[request.peer] = None
        return []

    # -- the crowd of an object

    def _crowd(self, name: ObjectName, now: float) -> _Crowd:
        crowd = self._crowds.get(name)
        if crowd is None:
            if len(self._crowds) >= CROWDS_MAX:
                idle = next((other for other, crowd in self._crowds.items() if not crowd.uploads), None)
                if idle is not None:
                    del self._crowds[idle]
            crowd = self._crowds[name] = _Crowd()
        crowd.touched_at = now
        self._crowds.move_to_end(name)
        return crowd

    def _fan_out(self, chunks: int) -> int:
        return 1 if chunks >= self.limits.large_chunks else self.limits.tree_fan_out

    def _fast(self, crowd: _Crowd) -> int:
        return sum(not upload.slow for upload in crowd.uploads.values())

    def _has_place(self, crowd: _Crowd | None) -> bool:
        of_object = len(crowd.uploads) if crowd is not None else 0
        return len(self._uploads) < self.limits.uploads_max and of_object < self.limits.of_object_max

    def _send_away(self, crowd: _Crowd, request: Request, chunks: int) -> tuple[ProcessId, ...]:
        others = self._others(crowd, request, chunks)
        if others:
            crowd.sent_away.add(request.peer)
            crowd.peers[others[0]] += 1
        return others

    def _others(self, crowd: _Crowd, request: Request, chunks: int) -> tuple[ProcessId, ...]:
        """Who has the object, or will have more of it than the one that asks.

        Those are the ones that came before it. The first of them that was not yet named to as many as it should serve goes first.
        """
        fan_out = self._fan_out(chunks)
        found: list[tuple[bool, int, int, ProcessId]] = []
        for position, (peer, named) in enumerate(crowd.peers.items()):
            if peer == request.peer:
                if request.first == 0:
                    break
                continue
            upload = crowd.uploads.get(peer)
            if upload is not None and upload.slow:
                continue
            ahead = peer in crowd.done or (upload is not None and upload.next - upload.sending > request.first)
            found.append((request.first > 0 and not ahead, named if named >= fan_out else 0, position, peer))
        if request.first == 0:
            found += [(False, named if named >= fan_out else 0, 0, p) for p, named in crowd.peers.items() if p in crowd.done]
        return tuple(dict.fromkeys(peer for *_, peer in sorted(found) if peer != request.peer))[:OTHERS_MAX]

    # -- sending

    def _send(self, now: float) -> list[UploadDecision]:
        """As many chunks as may be under way, one of each peer in turn (UP-5)."""
        decisions: list[UploadDecision] = []
        while self._sends < self.limits.sends_max:
            upload = self._next_turn()
            if upload is None:
                break
            index, upload.next = upload.next, upload.next + 1
            if not upload.sending:
                upload.moved_at = now
            upload.sending += 1
            self._peers[upload.peer].sending += 1
            self._sends += 1
            decisions.append(self._chunk(upload, index))
        return decisions

    def _chunk(self, upload: _Upload, index: int) -> Send:
        start = index * self.limits.chunk_bytes
        length = chunk_length(upload.size, index, self.limits.chunk_bytes)
        extent, on_disk = upload.extent, upload.on_disk
        return Send(upload.number, upload.peer, upload.name, upload.attempt, index, extent, start, length, on_disk)

    def _next_turn(self) -> _Upload | None:
        for name, peer in self._peers.items():
            if peer.sending >= self.limits.sends_of_peer_max:
                continue
            for number, upload in peer.uploads.items():
                if upload.ready:
                    self._peers.move_to_end(name)
                    peer.uploads.move_to_end(number)
                    return upload
        return None

    def sent(self, number: int, now: float) -> list[UploadDecision]:
        """The bytes of one Send are needed no more, whatever has become of them."""
        upload = self._uploads[number]
        assert upload.sending > 0, "UP-2: more was sent than there was to send"
        upload.sending -= 1
        upload.slow = now - upload.moved_at > SLOW_S
        upload.moved_at = now
        self._peers[upload.peer].sending -= 1
        self._sends -= 1
        decisions = self._end(upload) if upload.closing and not upload.sending else []
        return [*decisions, *self._send(now), *self._wake()]

    def cannot_read(self, number: int, now: float) -> list[UploadDecision]:
        """The file of an upload cannot be read. Its Sends still have to be `sent`."""
        upload = self._uploads.get(number)
        if upload is None or upload.closing:
            return []
        return [Refuse(upload.peer, upload.name, upload.attempt, Refusal.GONE), *self._close(upload), *self._send(now), *self._wake()]

    # -- what we have

    def grown(self, name: ObjectName, chunks: int, now: float) -> list[UploadDecision]:
        """So many chunks of something that we fetch are here."""
        crowd = self._crowds.get(name)
        if crowd is not None:
            for upload in crowd.uploads.values():
                if not upload.ready:
                    upload.moved_at = now
                upload.have = max(upload.have, chunks)
        decisions = self._send(now)
        for peer in list(self._level.get(name, ())):
            if self._waiters[name, peer].request.first < chunks:
                decisions.append(Again(self._forget_waiter(name, peer)))
        return decisions

    def gone(self, name: ObjectName, now: float) -> list[UploadDecision]:
        """The object is not here any more, or will not come."""
        decisions: list[UploadDecision] = []
        for waiting, peer in [key for key in self._waiters if key[0] == name]:
            decisions += self._refuse(self._forget_waiter(waiting, peer), Refusal.GONE)
        crowd = self._crowds.pop(name, None)
        if crowd is not None:
            for upload in list(crowd.uploads.values()):
                decisions.append(Refuse(upload.peer, name, upload.attempt, Refusal.GONE))
                decisions += self._close(upload, crowd)
        return [*decisions, *self._send(now), *self._wake()]

    # -- peers

    def left(self, peer: ProcessId, name: ObjectName, attempt: int, complete: bool, now: float) -> list[UploadDecision]:
        """The peer needs nothing more of this attempt."""
        decisions: list[UploadDecision] = []
        waiter = self._waiters.get((name, peer))
        if waiter is not None and waiter.request.attempt <= attempt:
            self._forget_waiter(name, peer)
        crowd = self._crowds.get(name)
        if crowd is not None:
            crowd.touched_at = now
            if complete and peer in crowd.peers:
                crowd.done.add(peer)
            upload = crowd.uploads.get(peer)
            if upload is not None and upload.attempt <= attempt:
                decisions += self._close(upload)
        return [*decisions, *self._send(now), *self._wake()]

    def node_lost(self, peer: ProcessId, now: float) -> list[UploadDecision]:
        """The connection to a peer is lost. What was being sent to it still has to be `sent`."""
        decisions: list[UploadDecision] = []
        for name, waiting in [key for key in self._waiters if key[1] == peer]:
            self._forget_waiter(name, waiting)
        for crowd in self._crowds.values():
            crowd.peers.pop(peer, None)
            crowd.done.discard(peer)
            crowd.sent_away.discard(peer)
            upload = crowd.uploads.get(peer)
            if upload is not None:
                decisions += self._close(upload, crowd)
        return [*decisions, *self._send(now), *self._wake()]

    # -- time

    def next_at(self) -> float | None:
        """When `tick` is due, or None: nothing has a deadline."""
        times = [upload.moved_at + self.limits.idle_s for upload in self._uploads.values()]
        times += [upload.moved_at + SLOW_S for upload in self._uploads.values() if upload.sending and not upload.slow]
        times += [upload.told_at + KEEP_S for upload in self._uploads.values() if self._hungry(upload)]
        for waiter in self._waiters.values():
            times.append(waiter.since + LEVEL_S if waiter.level else waiter.told_at + KEEP_S)
        times += [crowd.touched_at + CROWD_S for crowd in self._crowds.values() if not crowd.uploads]
        return min(times, default=None)

    def tick(self, now: float) -> list[UploadDecision]:
        """Comfort those who wait, and drop those who do not."""
        decisions: list[UploadDecision] = []
        for waiter in list(self._waiters.values()):
            request = waiter.request
            if waiter.level and now >= waiter.since + LEVEL_S:
                self._forget_waiter(request.name, request.peer)
                decisions += self._refuse(request, Refusal.BEHIND)
            elif not waiter.level and now >= waiter.told_at + KEEP_S:
                waiter.told_at = now
                decisions.append(StillHere(request.peer, request.name, request.attempt))
        for upload in list(self._uploads.values()):
            decisions += self._tick_upload(upload, now)
        for name, crowd in list(self._crowds.items()):
            if not crowd.uploads and now >= crowd.touched_at + CROWD_S:
                del self._crowds[name]
        return [*decisions, *self._send(now), *self._wake()]

    def _tick_upload(self, upload: _Upload, now: float) -> list[UploadDecision]:
        if upload.sending:
            if now >= upload.moved_at + self.limits.idle_s:
                upload.moved_at = now
                return [Cut(upload.peer, f"it took nothing of a chunk for {self.limits.idle_s:g} s")]
            upload.slow = upload.slow or now >= upload.moved_at + SLOW_S
            return []
        if self._hungry(upload):
            # We are at it ourselves: `grown` or `gone` will come of it.
            upload.moved_at = now
            if now >= upload.told_at + KEEP_S:
                upload.told_at = now
                return [StillHere(upload.peer, upload.name, upload.attempt)]
            return []
        if not upload.ready and now >= upload.moved_at + self.limits.idle_s:
            return [Refuse(upload.peer, upload.name, upload.attempt, Refusal.BUSY), *self._close(upload)]
        return []

    def _hungry(self, upload: _Upload) -> bool:
        """The peer has asked for what is not here yet."""
        return not upload.closing and not upload.sending and upload.have <= upload.next < upload.upto

    # -- ends

    def _close(self, upload: _Upload, crowd: _Crowd | None = None) -> list[UploadDecision]:
        """Send no more of it. `crowd`: when it is not in the table any more."""
        crowd = crowd or self._crowds[upload.name]
        del crowd.uploads[upload.peer]
        upload.closing = True
        return [] if upload.sending else self._end(upload)

    def _end(self, upload: _Upload) -> list[UploadDecision]:
        """UP-2: this is the one place where an extent is let go of."""
        del self._uploads[upload.number]
        peer = self._peers[upload.peer]
        del peer.uploads[upload.number]
        if not peer.uploads:
            del self._peers[upload.peer]
        self._holds -= 1
        return [LetGo(upload.number, upload.peer, upload.extent, upload.on_disk)]

    def _wake(self) -> list[UploadDecision]:
        """Who waits for a place that is there now comes again, one for each place, in the order of waiting."""
        places = self.limits.uploads_max - len(self._uploads)
        if places <= 0 or not self._waiters:
            return []
        woken: dict[ObjectName, int] = {}
        decisions: list[UploadDecision] = []
        for (name, peer), waiter in list(self._waiters.items()):
            if len(decisions) >= places:
                break
            crowd = self._crowds.get(name)
            of_object = (len(crowd.uploads) if crowd is not None else 0) + woken.get(name, 0)
            if waiter.level or of_object >= self.limits.of_object_max:
                continue
            woken[name] = woken.get(name, 0) + 1
            decisions.append(Again(self._forget_waiter(name, peer)))
        return decisions

    def _forget_waiter(self, name: ObjectName, peer: ProcessId) -> Request:
        waiter = self._waiters.pop((name, peer))
        if waiter.level:
            level = self._level[name]
            del level[peer]
            if not level:
                del self._level[name]
        return waiter.request

    # -- looking

    @property
    def idle(self) -> bool:
        """Nobody is served, and nobody waits."""
        return not self._uploads and not self._waiters

    def uploads(self) -> list[tuple[ProcessId, ObjectName, int, int]]:
        """(peer, object, next chunk, chunks in all), oldest first: for tests and the state API."""
        return [(upload.peer, upload.name, upload.next, upload.chunks) for upload in self._uploads.values()]

    def check(self) -> None:
        """Assert the invariants; for tests."""
        limits, uploads = self.limits, self._uploads.values()
        assert len(self._uploads) <= limits.uploads_max, "UP-1: too many uploads"
        assert self._sends == sum(upload.sending for upload in uploads) <= limits.sends_max, "UP-1: too many chunks at a time"
        assert self._holds == len(self._uploads), "UP-2: each upload holds once"
        live = {(name, peer): upload for name, crowd in self._crowds.items() for peer, upload in crowd.uploads.items()}
        assert live == {(upload.name, upload.peer): upload for upload in uploads if not upload.closing}, "UP-1: crowds know their uploads"
        for crowd in self._crowds.values():
            assert len(crowd.uploads) <= limits.of_object_max, "UP-1: too many of one object"
        for upload in uploads:
            assert not upload.closing or upload.sending, "UP-2: what ended is let go of when nothing is being sent"
            assert upload.next <= min(upload.upto, upload.have), "UP-4: sent and not asked for, or not here"
            assert upload.upto <= upload.chunks, "UP-4: there are no more chunks"
            assert self._peers[upload.peer].uploads[upload.number] is upload, "UP-5: everybody has a turn"
        for peer in self._peers.values():
            assert peer.sending == sum(upload.sending for upload in peer.uploads.values()) <= limits.sends_of_peer_max, "UP-1: a peer"
            assert peer.uploads, "UP-5: who is not served has no turn"
        if self._sends < limits.sends_max:
            starving = [u for u in uploads if u.ready and self._peers[u.peer].sending < limits.sends_of_peer_max]
            assert not starving, "UP-5: a chunk could be sent and is not"
        for (name, _), waiter in self._waiters.items():
            assert waiter.level or not self._has_place(self._crowds.get(name)), "UP-6: there is a place"
        level = {(name, peer) for name, peers in self._level.items() for peer in peers}
        assert level == {key for key, waiter in self._waiters.items() if waiter.level}, "UP-6: who is level is known"
        assert not live.keys() & self._waiters.keys(), "UP-6: who is served does not wait"
