"""The arena of a process that has no memory files: it does what an Arena of a node does, as far as one process can tell."""

from __future__ import annotations

import mmap

import pytest

from actorflow._core.io.arena import GIL_FREE_BYTES_MIN
from actorflow._core.io.process_arena import ProcessArena

SIZE = 4 * GIL_FREE_BYTES_MIN


@pytest.mark.parametrize("size", [1, 100, GIL_FREE_BYTES_MIN - 1, 2 * GIL_FREE_BYTES_MIN])
def test_what_is_written_is_seen(size: int) -> None:
    arena, data = ProcessArena.create(SIZE), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    arena.write(64, data)
    arena.write(64 + size, memoryview(b"end"))
    assert bytes(arena.view(64, size)) == data
    assert bytes(arena.view(64 + size, 3)) == b"end"
    assert arena.view(0, 8).readonly


def test_nothing_is_written_outside() -> None:
    arena = ProcessArena.create(SIZE)
    with pytest.raises(ValueError, match="outside"):
        arena.write(SIZE - 1, b"12")


def test_prefault_and_release_do_no_harm() -> None:
    arena = ProcessArena.create(SIZE)
    arena.write(0, b"here")
    arena.prefault(0, SIZE)
    arena.release(mmap.PAGESIZE, SIZE - mmap.PAGESIZE)
    assert bytes(arena.view(0, 4)) == b"here"


def test_a_copy_begins_within_4096_bytes_whatever_a_page_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store leaves that much room for it; pages of 16 KiB are those of Apple's processors."""
    monkeypatch.setattr(mmap, "PAGESIZE", 16384)
    arena, data = ProcessArena.create(SIZE), memoryview(bytes(65536))
    skews = [arena.skew(data[at:]) for at in range(0, 32768, 64)]
    assert {skew % 64 for skew in skews} == {0}
    assert max(skews) < 4096
