"""What every test shares: hypothesis profiles, and the seeds of the simulated scenarios.

A test with an argument called `sim_seed` runs once for each seed, and its id names the seed, so a failure can
be repeated: `pytest "path::test[seed=17]" --seeds 18`. `make sim-scenarios SCENARIO_SEEDS=1000` runs many
more (tests/sim/seeds.py).
"""

import gc
import signal
from pathlib import Path

import pytest
from hypothesis import settings

SEEDS_DEFAULT = 7
"""Enough for every rule that goes by the seed, such as each second, third or fifth one; `make sim-scenarios` runs as many as it is told."""

# A busy machine may be slow at any moment, so no example has a deadline; pytest-timeout bounds the test.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=20_000)
settings.load_profile("default")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell has started in the background, and all that it starts, ignores Ctrl-C; the tests of Ctrl-C do not.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=SEEDS_DEFAULT, help="seeds for each simulated scenario")
    parser.addoption("--seeds-from", type=int, default=0, help="the first of them: those before have passed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sim_seed" in metafunc.fixturenames:
        seeds = range(metafunc.config.getoption("--seeds-from"), metafunc.config.getoption("--seeds"))
        metafunc.parametrize("sim_seed", seeds, ids=[f"seed={seed}" for seed in seeds])


_module = Path()
"""Of the test that runs."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep the collector off what was there before the first test of a module: thousands of tests are half a million objects.

    Else each full collection takes half a second, and every test that looks for what it has left makes two of them. A simulated world
    undoes it when it is closed, which the next module mends: the scenarios collect seldom.
    """
    global _module
    if item.path != _module:
        _module = item.path
        gc.collect()  # What is frozen is never collected.
        gc.freeze()
