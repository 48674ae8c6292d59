"""What a round of the partition test comes to: from what the driver, the watcher and the register have told. Pure, and without mercy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.soak.partition_driver import FACTOR
from tests.soak.register import Write

UNHEARD_OF = frozenset({"InternalError", "SerializationError", "DeserializationError"})
"""Errors of ours that a partition is no reason for."""


class Cut(NamedTuple):
    """What was done: when the cables were cut and mended, and whether the driver was on the host that was cut off.

    `from_head`: the node is cut off from the head and all others, and so given up; otherwise everything has to stay where it is.
    `detached`: so many actors must be alive in the end, though the driver that made them has lost its cluster.
    """

    cut_at: float
    healed_at: float
    driver_cut: bool
    from_head: bool = True
    detached: int = 0


@dataclass
class Verdict:
    """Of one round, or of several. Times in seconds."""

    calls: Counter[str] = field(default_factory=Counter)
    """By stream."""
    results: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    """Acts of a life after the first one of the next."""
    ran_twice: list[str] = field(default_factory=list)
    """Calls that must run at most once."""
    failed_retries: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    lives: int = 0
    acts: int = 0
    gaps_s: list[float] = field(default_factory=list)
    """Between the last act of one life and the first of the next."""
    acted_s: list[float] = field(default_factory=list)
    """From the cut to the first act of the next life."""
    answered_s: list[float] = field(default_factory=list)
    """From the cut to the first answer of the next life."""
    back_s: list[float] = field(default_factory=list)
    """From the mending of the cables until the node was there as a new one."""
    driver_back_s: list[float] = field(default_factory=list)
    longest_s: list[float] = field(default_factory=list)
    """The call that took longest."""

    def problems(self) -> list[str]:
        """All that is wrong, in words."""
        kinds = [
            ("wrong", self.wrong), ("hung", self.hung), ("acted twice", self.twice), ("ran twice", self.ran_twice),
            ("a call with retries failed", self.failed_retries), ("out of order", self.disorder),
        ]  # fmt: skip
        return [f"{kind}: {what}" for kind, found in kinds for what in found]

    def add(self, other: Verdict) -> None:
        """Sum up."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)


def judge(told: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]], writes: Sequence[Write], cut: Cut) -> Verdict:
    """`told`: the lines of the driver; `seen`: those of the watcher; `writes`: what came to the register in this round."""
    verdict = Verdict()
    _judge_lives(writes, cut, verdict)
    _judge_calls([line for line in told if "call" in line], writes, cut, verdict)
    verdict.hung += [f"{line['hung']} ({line['kind']})" for line in told if "hung" in line]
    if not any("done" in line for line in told):
        verdict.hung.append("the driver did not come to its end")
    _judge_nodes([line for line in seen if "nodes" in line], cut, verdict)
    if cut.driver_cut:
        back = [line["back"] for line in told if "back" in line]
        alive = [line["actor"] for line in seen if line.get("alive")]
        if len(alive) != cut.detached:
            verdict.wrong.append(f"of {cut.detached} detached actors these lived in the end: {alive}")
        if not any("lost" in line for line in told):
            verdict.wrong.append("the driver on the host that was cut off was not told that its cluster is gone")
        elif not back:
            verdict.hung.append("the driver on the host that was cut off could not join again")
        else:
            verdict.driver_back_s.append(back[0] - cut.healed_at)
    elif any("lost" in line for line in told):
        verdict.wrong.append("a driver that was not cut off has lost its cluster")
    return verdict


def _judge_lives(writes: Iterable[Write], cut: Cut, verdict: Verdict) -> None:
    newest: dict[str, Write] = {}
    for write in writes:
        if not write.life:
            continue
        verdict.acts += 1
        before = newest.get(write.name)
        if before is not None and write.life < before.life:
            verdict.twice.append(f"{write.name}: life {write.life} acted at {write.at:.3f}, {before.life} had acted at {before.at:.3f}")
            continue
        if before is None or write.life > before.life:
            verdict.lives += 1
            if before is not None:
                verdict.gaps_s.append(write.at - before.at)
                verdict.acted_s.append(write.at - cut.cut_at)
        newest[write.name] = write


def _judge_calls(calls: Sequence[dict[str, Any]], writes: Sequence[Write], cut: Cut, verdict: Verdict) -> None:
    ran = Counter(write.call for write in writes if write.what == "call")
    answered: dict[str, float] = {}
    for line in calls:
        call, kind, retries = line["call"], line["kind"], line["kind"].endswith("again")
        verdict.calls[kind] += 1
        if not retries and ran[call] > 1:
            verdict.ran_twice.append(f"{call} ran {ran[call]} times")
        if "error" in line:
            verdict.errors[line["error"]] += 1
            _judge_error(line, retries, cut, verdict)
            continue
        verdict.results[kind] += 1
        if line["value"] != line["number"] * FACTOR:
            verdict.wrong.append(f"{call} gave {line['value']}")
        if not ran[call]:
            verdict.wrong.append(f"{call} has a result, and never ran")
        if line["life"] > 1 and line["ended"] > cut.cut_at:
            answered[kind] = min(answered.get(kind, line["ended"]), line["ended"])
    verdict.answered_s += [at - cut.cut_at for at in answered.values()]
    verdict.longest_s += [max((line["ended"] - line["began"] for line in calls), default=0.0)]
    _judge_order({line["call"]: line["number"] for line in calls}, writes, verdict)


def _judge_error(line: dict[str, Any], retries: bool, cut: Cut, verdict: Verdict) -> None:
    words = f"{line['call']} ended in {line['error']}: {line['text']}"
    gone = cut.driver_cut and line["error"] == "ClusterConnectionError"
    if not line["typed"] or line["error"] in UNHEARD_OF:
        verdict.wrong.append(words)
    elif retries and not gone:  # Nobody can try again for a driver whose own node is gone.
        verdict.failed_retries.append(words)
    elif line["ended"] < cut.cut_at:
        verdict.wrong.append(f"{words} (before anything was cut)")


def _judge_order(numbers: dict[str, int], writes: Sequence[Write], verdict: Verdict) -> None:
    """The calls of one caller start in the order in which they were made, in each life: those that are tried again come first."""
    newest: dict[tuple[str, int], int] = {}
    for write in writes:
        if write.what == "call" and write.life and write.call in numbers:
            number, key = numbers[write.call], (write.name, write.life)
            if number < newest.get(key, -1):
                verdict.disorder.append(f"{write.call} started after call {newest[key]} in life {write.life}")
            newest[key] = max(number, newest.get(key, -1))


def _judge_nodes(seen: Sequence[dict[str, Any]], cut: Cut, verdict: Verdict) -> None:
    if not cut.from_head:
        verdict.wrong += [f"nodes came or went: {line['nodes']}" for line in seen[1:]]
        return
    first = {node_id for node_id, there, state in (seen[0]["nodes"] if seen else ()) if there and state == "alive"}
    for line in seen:
        fresh = [node_id for node_id, there, state in line["nodes"] if there and state == "alive" and node_id not in first]
        if fresh:
            verdict.back_s.append(line["at"] - cut.healed_at)
            break
    else:
        verdict.hung.append("the node that was cut off did not come back as a new one")
    if seen and any(node_id in first and state == "alive" for node_id, _, state in seen[-1]["nodes"]):
        verdict.wrong.append("the node that was cut off is there under its old name")
