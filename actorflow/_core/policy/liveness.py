"""Who is alive: the head gives up a node that has been silent, and a node that is not heard gives itself up before. Pure.

    node                                   head
      | -- Beat(n), every BEAT_S ----------> |  heard: it lives for SILENCE_S more
      | <------------------- BeatHeard(n) -- |
      |  from when Beat(n) was sent:         |
      |  it may act for LEASE_S more         |

    LV-1  A node's lease ends before the head gives it up: it is counted from the moment a word was sent, the head counts from when it came,
          and LEASE_S with the time to end everything is less than SILENCE_S. So at no moment two incarnations of one actor act.
    LV-2  A head that did not run for a while has not listened either: that time is nobody's silence.
    LV-3  Who has never sent a beat is not watched: a node in the process of the head, or one that speaks no heartbeats.
"""

from __future__ import annotations

from collections import OrderedDict

from actorflow._core.base.ids import ProcessId

BEAT_S = 1.0
LEASE_S = 7.0
SILENCE_S = 9.0
"""With LOOK_S, a node that is cut off is noticed within 10 s."""
LOOK_S = 0.5
"""How often the head looks."""
BEATS_MAX = 64
"""Beats without an answer that are remembered."""


class Watch:
    """The head's side: when which node was heard."""

    def __init__(self, *, silence_s: float = SILENCE_S, look_s: float = LOOK_S) -> None:
        self._silence_s = silence_s
        self._look_s = look_s
        self._heard: OrderedDict[ProcessId, float] = OrderedDict()
        """Longest silent first."""
        self._looked_at: float | None = None

    def heard(self, node_id: ProcessId, now: float) -> None:
        """A beat has come."""
        self._heard[node_id] = now
        self._heard.move_to_end(node_id)

    def forget(self, node_id: ProcessId) -> None:
        """The node is gone."""
        self._heard.pop(node_id, None)

    @property
    def empty(self) -> bool:
        """There is nobody to watch."""
        return not self._heard

    def rest(self) -> None:
        """Nobody looks for a while."""
        self._looked_at = None

    def look(self, now: float) -> list[tuple[ProcessId, float]]:
        """Those who have been silent for too long, with for how long; they are watched no more. Call it every `look_s`."""
        late = 0.0 if self._looked_at is None else now - self._looked_at - self._look_s
        self._looked_at = now
        if late > self._look_s:
            for node_id in self._heard:  # LV-2
                self._heard[node_id] = min(now, self._heard[node_id] + late)
        silent = []
        for node_id, at in self._heard.items():
            if now - at < self._silence_s:
                break
            silent.append((node_id, now - at))
        for node_id, _ in silent:
            del self._heard[node_id]
        return silent


class Lease:
    """The node's side: until when it may act. It begins at the first beat that is answered."""

    def __init__(self, *, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._number = 0
        self.until: float | None = None
        """None before the first answer."""

    def beat(self, now: float) -> int:
        """One more beat is sent: its number."""
        self._number += 1
        self._sent[self._number] = now
        if len(self._sent) > BEATS_MAX:
            self._sent.popitem(last=False)
        return self._number

    def answered(self, number: int) -> None:
        """The head has heard that one, and those before need no answer."""
        sent_at = self._sent.get(number)
        if sent_at is None:
            return
        while self._sent and next(iter(self._sent)) <= number:
            self._sent.popitem(last=False)
        self.until = sent_at + self._lease_s if self.until is None else max(self.until, sent_at + self._lease_s)

    def over(self, now: float) -> bool:
        """It may not act any more."""
        return self.until is not None and now >= self.until
