"""The contract of Arena."""

import gc
import pickle
import weakref

import numpy as np
import pytest

from tests.conformance.worlds import ArenaWorld

SIZE = 1 << 20


def test_what_one_process_writes_another_reads(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    other = arena_world.attach(arena)
    arena.view(5_000, 5, writable=True)[:] = b"hello"
    assert bytes(other.view(4_999, 7)) == b"\0hello\0"
    other.view(5_001, 1, writable=True)[0] = ord("a")
    assert bytes(arena.view(5_000, 5)) == b"hallo"


def test_the_size_is_at_least_what_was_asked_for(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    assert arena.size == SIZE
    assert arena_world.attach(arena).size == SIZE


def test_a_view_is_plain_bytes_and_read_only_unless_asked_for(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    view = arena.view(10, 100)
    assert (view.format, view.ndim, view.nbytes, view.contiguous, view.readonly) == ("B", 1, 100, True, True)
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    assert not arena.view(10, 100, writable=True).readonly


def test_a_read_only_view_sees_later_writes(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    view, writer = arena.view(0, 4), arena.view(0, 4, writable=True)
    writer[:] = b"abcd"
    assert view == b"abcd"


@pytest.mark.parametrize(("offset", "size"), [(-1, 2), (0, SIZE + 1), (SIZE, 1), (0, -1), (SIZE + 1, 0)])
def test_a_range_outside_is_refused(arena_world: ArenaWorld, offset: int, size: int) -> None:
    arena = arena_world.create(SIZE)
    with pytest.raises(ValueError, match="outside"):
        arena.view(offset, size)
    with pytest.raises(ValueError, match="outside"):
        arena.release(offset, size)


def test_the_ends_can_be_used(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    arena.view(0, SIZE, writable=True)[-1] = 7
    assert bytes(arena.view(SIZE - 1, 1)) == b"\7"
    assert bytes(arena.view(0, 0)) == bytes(arena.view(SIZE, 0)) == b""


# -- the end of a view


def test_on_gone_comes_once_when_the_last_view_is_gone(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    gone: list[str] = []
    view = arena.view(100, 50)
    arena.watch(view, lambda: gone.append("gone"))
    part = view[10:20]
    del view
    assert gone == []
    del part
    assert gone == ["gone"]


def test_everything_that_was_made_of_a_view_keeps_it(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    gone: list[str] = []
    view = arena.view(0, 80)
    arena.watch(view, lambda: gone.append("gone"))
    array = np.frombuffer(view, dtype="f8")
    assert not array.flags.writeable
    row = array[2:4].reshape(2, 1)
    buffer = pickle.PickleBuffer(view)
    cast = view.cast("d")
    del view, array, buffer
    assert gone == []
    del cast
    assert gone == []
    del row
    assert gone == ["gone"]


def test_arrow_keeps_it_too(arena_world: ArenaWorld) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    arena = arena_world.create(SIZE)
    gone: list[str] = []
    view = arena.view(0, 64)
    arena.watch(view, lambda: gone.append("gone"))
    part = pyarrow.py_buffer(view).slice(8, 8)
    assert not part.is_mutable
    del view
    assert gone == []
    del part
    assert gone == ["gone"]


def test_each_view_is_watched_for_itself_and_by_many(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    gone: list[str] = []
    first, second = arena.view(0, 10), arena.view(0, 10)
    arena.watch(first, lambda: gone.append("first"))
    arena.watch(second, lambda: gone.append("second"))
    arena.watch(second, lambda: gone.append("second again"))
    del second
    assert sorted(gone) == ["second", "second again"]
    del first
    assert len(gone) == 3


def test_an_empty_view_is_watched_like_any_other(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    gone: list[str] = []
    view = arena.view(10, 0)
    arena.watch(view, lambda: gone.append("gone"))
    del view
    assert gone == ["gone"]


def test_a_view_in_a_cycle_goes_with_the_collection(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    gone: list[str] = []

    class Holder:
        pass

    holder = Holder()
    holder.me = holder  # type: ignore[attr-defined]
    holder.view = arena.view(0, 10)  # type: ignore[attr-defined]
    arena.watch(holder.view, lambda: gone.append("gone"))  # type: ignore[attr-defined]
    seen = weakref.ref(holder)
    del holder
    gc.collect()
    assert seen() is None
    assert gone == ["gone"]


def test_a_foreign_view_is_refused(arena_world: ArenaWorld) -> None:
    with pytest.raises(TypeError, match="arena"):
        arena_world.create(SIZE).watch(memoryview(b"not ours"), lambda: None)


# -- release and close


def test_a_released_range_can_be_used_again(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    arena.view(0, SIZE, writable=True)[:] = b"x" * SIZE
    arena.release(4_096, 3 * 4_096)
    arena.release(0, 0)
    arena.view(4_096, 5, writable=True)[:] = b"again"
    assert bytes(arena.view(4_096, 5)) == b"again"
    assert bytes(arena.view(0, 4_096)) == b"x" * 4_096
    assert bytes(arena.view(4 * 4_096, SIZE - 4 * 4_096)) == b"x" * (SIZE - 4 * 4_096)


def test_live_views_survive_close(arena_world: ArenaWorld) -> None:
    arena = arena_world.create(SIZE)
    gone: list[str] = []
    writer = arena.view(0, 5, writable=True)
    view = arena.view(0, 5)
    arena.watch(view, lambda: gone.append("gone"))
    arena.close()
    arena.close()
    writer[:] = b"alive"
    del writer
    gc.collect()
    assert bytes(view) == b"alive"
    with pytest.raises(ValueError, match="closed"):
        arena.view(0, 5)
    del view
    assert gone == ["gone"]
