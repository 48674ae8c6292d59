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

    LV-7  A worker begins no call when its node's lease is over, whoever wakes up first after a standstill.

One bad link between a node and the head is no death: a node that is not answered asks others to pass on its beats.

    node                     another node                      head
      | -- RelayBeat(n) --------> | -- BeatOf(node, n) ---------> |  heard, as long as it is watched
      | <-------- BeatHeard(n) -- | <---- BeatHeardOf(node, n) -- |

    LV-4  A beat that others pass on counts as any other: the lease from when it was sent, the silence from when it came. A head that
          does not watch the node (any more) neither counts nor answers it, so LV-1 holds whichever way beats and answers go.
    LV-5  A node is heard only through others for INDIRECT_MAX_S at most. What is passed on after that is neither counted nor answered; so
          the node's lease ends, and it is given up SILENCE_S after the last beat that counted.
    LV-6  A node that is not answered itself passes nothing on, so what is passed on is fresh; nor does the first one, which is where the
          head is. An answer that another node brings counts only if that node was asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actorflow._core.base.ids import ProcessId

BEAT_S = 1.0
LEASE_S = 7.0
SILENCE_S = 9.0
"""With LOOK_S, a node that is cut off is noticed within 10 s."""
LOOK_S = 0.5
"""How often the head looks."""
BEATS_MAX = 64
"""Beats without an answer that are remembered."""
RELAY_AFTER_S = 2.5
"""After so long without an answer from the head itself a node asks others to pass on its beats."""
RELAYS_MAX = 3
"""... so many of them for each beat."""
INDIRECT_MAX_S = 60.0
"""How long a node may be heard only through others."""
QUIET_S = 3 * BEAT_S
"""After so long without a beat that was passed on, a beat of the node itself says that its link works again."""


class Dice(Protocol):
    """The part of `random.Random` that is used here."""

    def sample(self, population: Sequence[ProcessId], k: int, /) -> list[ProcessId]:
        """So many of them, in the order in which they were drawn."""


@dataclass(slots=True)
class Through:
    """A node is heard through others: since when, and when it last wanted to be."""

    since: float
    at: float


class Watch:
    """The head's side: when which node was heard."""

    def __init__(self, *, silence_s: float = SILENCE_S, look_s: float = LOOK_S) -> None:
        self._silence_s = silence_s
        self._look_s = look_s
        self._heard: OrderedDict[ProcessId, float] = OrderedDict()
        """Longest silent first."""
        self._through: dict[ProcessId, Through] = {}
        """Those that are heard only through others. Each is in `_heard` too."""
        self._looked_at: float | None = None

    def heard(self, node_id: ProcessId, now: float) -> bool:
        """A beat has come, from the node itself. True when it was heard only through others until now."""
        self._mark(node_id, now)
        through = self._through.get(node_id)
        if through is None or now - through.at < QUIET_S:
            return False  # Who asks others gets no answers, though its beats may come.
        del self._through[node_id]
        return True

    def heard_through(self, node_id: ProcessId, now: float) -> bool:
        """Another node has passed on a beat. False: it does not count, and is not to be answered."""
        if node_id not in self._heard:
            return False  # LV-4
        through = self._through.setdefault(node_id, Through(now, now))
        through.at = now
        if now - through.since >= INDIRECT_MAX_S:
            return False  # LV-5
        self._mark(node_id, now)
        return True

    def only_through_others(self, node_id: ProcessId) -> bool:
        """The node lives, as far as is known, and its link with the head does not."""
        return node_id in self._through

    def _mark(self, node_id: ProcessId, now: float) -> None:
        self._heard[node_id] = now
        self._heard.move_to_end(node_id)

    def forget(self, node_id: ProcessId) -> None:
        """The node is gone."""
        self._heard.pop(node_id, None)
        self._through.pop(node_id, None)

    @property
    def empty(self) -> bool:
        """There is nobody to watch."""
        return not self._heard

    def rest(self) -> None:
        """Nobody looks for a while."""
        self._looked_at = None

    def look(self, now: float) -> list[tuple[ProcessId, str]]:
        """Those who have been silent for too long, and how that came, in words; they are watched no more. Call it every `look_s`."""
        late = 0.0 if self._looked_at is None else now - self._looked_at - self._look_s
        self._looked_at = now
        if late > self._look_s:
            for node_id in self._heard:  # LV-2
                self._heard[node_id] = min(now, self._heard[node_id] + late)
            for through in self._through.values():
                through.since, through.at = through.since + late, min(now, through.at + late)
        silent = []
        for node_id, at in self._heard.items():
            if now - at < self._silence_s:
                break
            silent.append((node_id, self._why(node_id, at, now)))
        for node_id, _ in silent:
            self.forget(node_id)
        return silent

    def _why(self, node_id: ProcessId, at: float, now: float) -> str:
        through = self._through.get(node_id)
        if through is None:
            return f"nothing was heard of it for {now - at:.1f} s"
        if through.at - through.since >= INDIRECT_MAX_S:
            return f"it was heard only through other nodes for {INDIRECT_MAX_S:g} s, and its link with the head did not come back"
        return f"nothing was heard of it for {now - at:.1f} s, and before that only through other nodes, for {at - through.since:.1f} s"


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


class Detour:
    """The node's side: when others are asked to pass on its beats, and which of them."""

    def __init__(self, *, after_s: float = RELAY_AFTER_S, relays_max: int = RELAYS_MAX) -> None:
        self._after_s = after_s
        self._relays_max = relays_max
        self._unanswered: OrderedDict[int, float] = OrderedDict()
        """Beats that the head has not answered itself, and when they were sent."""
        self._asked: dict[ProcessId, None] = {}
        """All that were asked since the head has last answered in time."""
        self._tried: dict[ProcessId, None] = {}
        """Those among them that have brought no answer and are not asked again before all others were."""
        self._brought: dict[ProcessId, None] = {}
        """Those that have brought an answer since they were last chosen."""

    def beat(self, number: int, now: float) -> None:
        """One more beat is sent."""
        self._unanswered[number] = now
        if len(self._unanswered) > BEATS_MAX:
            self._unanswered.popitem(last=False)

    def answered(self, number: int) -> None:
        """The head itself has answered that one, and those before need no answer."""
        while self._unanswered and next(iter(self._unanswered)) <= number:
            self._unanswered.popitem(last=False)

    def brought(self, node_id: ProcessId) -> bool:
        """A node has brought an answer. False when it was not asked (LV-6)."""
        if node_id not in self._asked:
            return False
        self._tried.pop(node_id, None)
        self._brought[node_id] = None
        return True

    def wanted(self, now: float) -> bool:
        """The head does not answer: others are to be asked, and this node passes nothing on itself. Else it is forgotten who was asked."""
        if self._unanswered and now - next(iter(self._unanswered.values())) >= self._after_s:
            return True
        self._asked.clear()
        self._tried.clear()
        self._brought.clear()
        return False

    def choose(self, alive: Sequence[ProcessId], rng: Dice) -> list[ProcessId]:
        """Whom to ask with the next beat: those that were of use before, and others by chance, each once before one is asked again."""
        there = dict.fromkeys(alive)
        chosen = [node_id for node_id in self._brought if node_id in there][: self._relays_max]
        self._brought.clear()
        fresh = [node_id for node_id in there if node_id not in chosen and node_id not in self._tried]
        chosen += rng.sample(fresh, min(self._relays_max - len(chosen), len(fresh)))
        if len(chosen) < self._relays_max:
            self._tried.clear()
            rest = [node_id for node_id in there if node_id not in chosen]
            chosen += rng.sample(rest, min(self._relays_max - len(chosen), len(rest)))
        self._tried.update(dict.fromkeys(chosen))
        self._asked.update(dict.fromkeys(chosen))
        return chosen
