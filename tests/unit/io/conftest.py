"""Both kinds of loop, a directory with a short name, and no leaks."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.conformance.leaks import nothing_is_left

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_is_left():
        yield


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest, _nothing_is_left: None) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not tmp_path: its names may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="af-") as name:
        yield Path(name)
