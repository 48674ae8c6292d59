from __future__ import annotations

import pytest

from actorflow._core.policy.link_resets import LIVED_S, PAUSES_S, LinkResets


def pauses(resets: LinkResets, count: int, *, lives_s: float = 0.0, brings: int = 0) -> list[float]:
    """Of so many connections in a row, each of which comes up at once after its pause."""
    now, found = 100.0, []
    for number in range(count):
        resets.up(number * brings, now)
        now += lives_s
        resets.broke((number + 1) * brings, now)
        found.append(resets.pause_s())
        now += found[-1]
    return found


def test_lr_2_pauses_grow_up_to_a_second() -> None:
    found = pauses(LinkResets(), 20)
    assert found == sorted(found)
    assert found == [*PAUSES_S, *[1.0] * (20 - len(PAUSES_S))]
    assert sum(found) > 10.0, "twenty handshakes are not a loop"


def test_the_first_two_come_at_once() -> None:
    assert pauses(LinkResets(), 2) == [0.0, 0.0]


@pytest.mark.parametrize("good", [{"lives_s": LIVED_S}, {"brings": 1}], ids=["it lived", "it brought something"])
def test_lr_1_after_a_good_one_there_is_no_pause(good: dict[str, float]) -> None:
    resets = LinkResets()
    assert pauses(resets, 12)[-1] == 1.0
    assert pauses(resets, 5, **good) == [0.0] * 5  # type: ignore[arg-type]
    assert pauses(resets, 2) == [0.0, PAUSES_S[2]], "it begins anew: these are the second and the third in a row"


def test_what_was_never_up_says_nothing() -> None:
    resets = LinkResets()
    assert resets.pause_s() == 0.0
    for _ in range(10):
        resets.broke(0, 1.0)
    assert resets.pause_s() == 0.0
