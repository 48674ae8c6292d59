"""Clusters that are attacked, with real processes. What is left of them is looked for as in the integration tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import leaks
from tests.integration.conftest import home

__all__ = ["home"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for the sockets of clusters."""
    with tempfile.TemporaryDirectory(prefix="afs-") as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def nothing_is_left(home: Path) -> Iterator[None]:
    """No process, file, thread or shared memory of ours."""
    with leaks.nothing_is_left(home):
        yield
