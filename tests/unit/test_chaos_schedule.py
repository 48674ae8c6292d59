"""The schedule of chaos: from the seed alone, in the shares that were asked for; and its command line."""

from __future__ import annotations

from collections import Counter

import pytest

from actorflow.testing.chaos.options import parse, repeats
from actorflow.testing.chaos.schedule import LASTING, LONG_S, Kind, Rates, schedule

RATES = Rates()
LENGTH_S = 3000.0


def of_kind(faults: list[object], *kinds: Kind) -> list[tuple[float, float, float]]:
    return [(fault.at_s, fault.pick, fault.seconds) for fault in faults if fault.kind in kinds]  # type: ignore[attr-defined]


def test_the_same_seed_gives_the_same_faults() -> None:  # CS-1
    assert schedule(7, 60, RATES) == schedule(7, 60, RATES)
    assert schedule(7, 60, RATES) != schedule(8, 60, RATES)


def test_faults_are_numbered_in_the_order_of_their_moments() -> None:
    faults = schedule(1, 60, RATES)
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(0 < fault.at_s < 60 and 0 <= fault.pick < 1 for fault in faults)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short, long = schedule(3, 30, RATES), schedule(3, 300, RATES)
    assert long[: len(short)] == short


@pytest.mark.parametrize(
    ("off", "kinds"),
    [
        ({"kill_s": 0.0}, {Kind.KILL_WORKER, Kind.KILL_NODE}),
        ({"stop_s": 0.0}, {Kind.STOP_WORKER, Kind.STOP_NODE}),
        ({"reset_s": 0.0}, {Kind.RESET}),
        ({"partition_s": 0.0}, {Kind.PARTITION}),
    ],
)
def test_what_is_switched_off_moves_none_of_the_others(off: dict[str, float], kinds: set[Kind]) -> None:  # CS-2
    every, fewer = schedule(5, LENGTH_S, RATES), schedule(5, LENGTH_S, RATES._replace(**off))  # type: ignore[arg-type]
    assert not of_kind(fewer, *kinds)  # type: ignore[arg-type]
    others = set(Kind) - kinds
    assert of_kind(fewer, *others) == of_kind(every, *others)  # type: ignore[arg-type]


def test_the_shares_are_those_that_were_asked_for() -> None:  # CS-3
    faults = schedule(2, LENGTH_S, RATES._replace(node_every=4, head_every=10))
    count = Counter(fault.kind for fault in faults)
    kills = count[Kind.KILL_WORKER] + count[Kind.KILL_NODE] + count[Kind.KILL_HEAD]
    assert kills == pytest.approx(LENGTH_S / 3, rel=0.05)
    assert count[Kind.KILL_HEAD] == kills // 10
    assert count[Kind.KILL_NODE] == kills // 4 - kills // 20, "where both have their turn it is the head's"
    stops = count[Kind.STOP_WORKER] + count[Kind.STOP_NODE]
    assert stops == pytest.approx(LENGTH_S / 10, rel=0.05)
    assert count[Kind.STOP_NODE] == stops // 3
    assert count[Kind.RESET] == pytest.approx(LENGTH_S / 8, rel=0.05)
    assert count[Kind.PARTITION] == pytest.approx(LENGTH_S / 20, rel=0.1)


def test_the_head_is_spared_unless_it_is_asked_for() -> None:
    assert not of_kind(schedule(2, LENGTH_S, RATES), Kind.KILL_HEAD)  # type: ignore[arg-type]


def test_what_lasts_lasts_about_as_long_as_it_should_and_some_outlasts_a_lease() -> None:
    faults = schedule(4, LENGTH_S, RATES)
    assert all((fault.seconds > 0) is (fault.kind in LASTING) for fault in faults)
    assert all(1.0 <= fault.seconds <= 3.0 for fault in faults if fault.kind is Kind.STOP_WORKER)
    for kind in (Kind.STOP_NODE, Kind.PARTITION):
        lasts = [fault.seconds for fault in faults if fault.kind is kind]
        assert lasts.count(LONG_S) == len(lasts) // 3
        assert all(seconds == LONG_S or 1.0 <= seconds <= 3.0 for seconds in lasts)


def test_nothing_is_asked_for() -> None:
    assert schedule(1, 60, Rates(kill_s=0, stop_s=0, reset_s=0, partition_s=0)) == []


# The command line -------------------------------------------------------------------------------------------------------------------------


def test_the_command_that_repeats_a_run_gives_the_same_options() -> None:
    given = ["--seconds", "90.5", "--nodes", "4", "--kill-every", "1.5", "--node-every", "2", "--reset-every", "0", "--hang", "90"]
    chosen = parse(given)
    command = repeats(chosen, 77)
    assert parse(command.split()[3:]) == chosen._replace(seed=77)
    assert repeats(parse([]), 3) == "python -m actorflow.testing.chaos --seed 3"


@pytest.mark.parametrize("given", [["--comparable"], ["--system", "ray"]])
def test_against_ray_there_is_only_what_ray_has(given: list[str]) -> None:
    chosen = parse([*given, "--seed", "1"])
    assert chosen.comparable
    assert (chosen.rates.reset_s, chosen.rates.partition_s, chosen.rates.head_every) == (0.0, 0.0, 0)
    assert parse(repeats(chosen, 1).split()[3:]) == chosen


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--head-every -1", "-1 is out of bounds: 0 to 1000"),
        ("--seconds no", "'no' is no number of seconds"),
        ("--seconds 0", "0 s is out of bounds: 1 to 86400 s"),
        ("--seconds nan", "nan s is out of bounds"),
        ("--nodes 0", "0 is out of bounds: 1 to 20"),
        ("--nodes 1.5", "'1.5' is no whole number"),
        ("--nodes 1", "there is no cable to cut"),
        ("--seed -1", "-1 is no seed"),
        ("--system dask", "invalid choice: 'dask'"),
        ("--hang 1", "1 s is out of bounds: 20 to 3600 s"),
    ],
)
def test_what_cannot_be_asked_for(given: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(given.split())
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
