"""The runner of many seeds: it finds the tests, and it tells what fails."""

import pytest

from tests.sim import seeds


def test_it_finds_every_test_with_a_seed_and_runs_it_with_any() -> None:
    found = seeds.seeded_tests()
    assert "tests/sim/test_cluster.py::test_a_scenario_without_faults[seed={}-tasks]" in found
    assert any("test_a_fault_at_some_steps" in name and "a worker dies" in name for name in found)
    found["tests/sim/test_cluster.py::test_a_scenario_without_faults[seed={}-tasks]"](3)


def test_a_seed_that_fails_is_told_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def odd(seed: int) -> None:
        ran.append(seed)
        assert seed != 4, "four is wrong"

    monkeypatch.setitem(seeds._tests, "odd", odd)
    failures = seeds.run_block("odd", range(2, 7))
    assert ran == [2, 3, 4, 5, 6]
    assert [failure.seed for failure in failures] == [4]
    assert "four is wrong" in failures[0].text


def test_every_test_gets_every_seed() -> None:
    got = [(name, seed) for name, part in seeds.blocks(["a", "b"], range(5, 28)) for seed in part]
    assert sorted(got) == [(name, seed) for name in "ab" for seed in range(5, 28)]


def test_the_command_runs_that_seed_alone() -> None:
    assert seeds.again("tests/x.py::test[seed={}-server]", 17) == (
        "python -m pytest 'tests/x.py::test[seed=17-server]' --seeds-from 17 --seeds 18"
    )
