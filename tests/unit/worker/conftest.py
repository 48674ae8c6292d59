"""Both kinds of loop for what runs calls."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.unit.io.conftest import LOOPS


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner
