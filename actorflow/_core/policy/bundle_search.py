"""The complete search for a place for every bundle, when the greedy ways have found none. Pure.

Packing is hard in general, so the search has a bound, and says whether it was complete.
"""

from __future__ import annotations

from collections.abc import Sequence

Vector = tuple[int, ...]
"""Amounts of the resources that are asked for, always in the same order."""


def search(
    demands: Sequence[Vector], allowed: Sequence[Sequence[bool]], rooms: Sequence[Vector], work_max: int
) -> list[int] | bool:
    """Return the number of the node for each demand, or False when `work_max` pairs were looked at in vain.

    True: every possibility was looked at, and there is none. Depth first, without recursion: a group may have
    thousands of bundles. Nodes that are alike at a step are tried once. `allowed[i][n]`: labels permit it. There is at
    least one demand and one room, and none is negative.
    """
    if any(sum(amounts) > sum(room) for amounts, room in zip(zip(*demands, strict=True), zip(*rooms, strict=True), strict=True)):
        return True
    state = list(rooms)
    columns = list(zip(*allowed, strict=True))
    labels = {column: number for number, column in enumerate(dict.fromkeys(columns))}
    kinds = [labels[column] for column in columns]
    """Nodes of one kind may have the same bundles; with the same room they are alike."""
    chosen: list[int] = []
    tried: list[set[tuple[int, Vector]]] = [set()]
    at = [0]
    """Where each depth goes on."""
    work = 0
    while True:
        depth = len(chosen)
        if depth == len(demands):
            return chosen
        demand = demands[depth]
        number = at[depth]
        while number < len(state):
            work += 1
            if allowed[depth][number] and (kinds[number], state[number]) not in tried[depth] and _covers(state[number], demand):
                break
            number += 1
        if work > work_max:
            return False
        if number < len(state):
            tried[depth].add((kinds[number], state[number]))
            at[depth] = number + 1
            state[number] = tuple(have - need for have, need in zip(state[number], demand, strict=True))
            chosen.append(number)
            # Of equal bundles the later one never goes to an earlier node: the other way round is the same.
            same = depth + 1 < len(demands) and demands[depth + 1] == demand and allowed[depth + 1] == allowed[depth]
            at.append(number if same else 0)
            tried.append(set())
            continue
        if not chosen:
            return True
        at.pop()
        tried.pop()
        number = chosen.pop()
        state[number] = tuple(have + need for have, need in zip(state[number], demands[len(chosen)], strict=True))


def _covers(room: Vector, demand: Vector) -> bool:
    return all(need <= have for have, need in zip(room, demand, strict=True))
