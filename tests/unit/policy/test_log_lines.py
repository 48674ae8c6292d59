"""The output of workers: cutting, keeping, limiting."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.log_lines import Batch, LineCutter, WorkerOutput


def test_lines_are_cut_at_newlines_wherever_the_bytes_are_cut() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"one\ntw") == ["one"]
    assert cutter.feed(b"o\n\nthree\r\n") == ["two", "", "three"]
    assert cutter.feed(b"rest") == []
    assert cutter.flush() == ["rest"]
    assert cutter.flush() == []


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5), st.integers(4, 40))
def test_ll_1_no_line_is_too_long_and_the_cuts_of_the_bytes_do_not_matter(
    data: bytes, cuts: list[int], line_bytes_max: int
) -> None:
    data = data.replace(b"\r", b"")
    whole = LineCutter(line_bytes_max)
    expected = whole.feed(data) + whole.flush()
    parts = LineCutter(line_bytes_max)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = [line for a, b in pairwise(edges) for line in parts.feed(data[a:b])]
    assert lines + parts.flush() == expected
    growth = 3  # a byte that is not UTF-8 becomes a character of three bytes
    assert all(len(line.encode()) <= line_bytes_max * growth for line in expected)


def test_a_long_line_is_not_cut_inside_a_character() -> None:
    cutter = LineCutter(4)
    assert cutter.feed("aaaéb\n".encode()) == ["aaa", "éb"]
    assert "".join(cutter.feed(("é" * 50 + "\n").encode())) == "é" * 50


def test_a_progress_bar_leaves_what_a_terminal_would_show() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"\r 10%") == []
    assert cutter.feed(b"\r 50%\r100%") == []
    assert cutter.feed(b"\n") == ["100%"]
    assert cutter.feed(b"a\rb\r\n") == ["b"]


def test_an_endless_progress_bar_is_not_kept_whole() -> None:
    cutter = LineCutter()
    for percent in range(10_000):
        assert cutter.feed(b"\r%5d" % percent) == []
    assert cutter.flush() == [" 9999"]


def test_bytes_that_are_no_text_do_not_hurt() -> None:
    assert LineCutter().feed(b"\xff\xfe\n") == ["\ufffd\ufffd"]


def test_ll_2_the_last_lines_are_kept_for_errors() -> None:
    output = WorkerOutput(0.0, tail_lines=3)
    output.feed("stdout", b"1\n2\n3\n", 0.0, room=True)
    output.feed("stderr", b"4\nrest", 0.0, room=False)
    output.finish(0.0, room=True)
    assert list(output.tail) == ["3", "4", "rest"]


def test_ll_3_over_the_rate_lines_are_dropped_and_counted() -> None:
    output = WorkerOutput(0.0, lines_per_s=1.0, burst_lines=2.0)
    assert output.feed("stdout", b"1\n2\n3\n4\n", 0.0, room=True) == Batch("stdout", ["1", "2"], 0)
    assert output.feed("stdout", b"5\n", 0.5, room=True) is None
    assert output.dropped == 3
    assert output.feed("stdout", b"6\n", 2.0, room=True) == Batch("stdout", ["6"], 3)
    assert output.overdue() is None


def test_a_slow_driver_gets_a_count_instead_of_lines() -> None:
    output = WorkerOutput(0.0)
    assert output.feed("stdout", b"1\n2\n", 0.0, room=False) is None
    assert output.overdue() == Batch("stderr", [], 2)
    assert output.overdue() is None


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.floats(0, 3)), max_size=30))
def test_ll_3_every_line_is_handed_on_or_counted(chunks: list[tuple[int, bool, float]]) -> None:
    output, now, handed, told, total = WorkerOutput(0.0, lines_per_s=3.0, burst_lines=10.0), 0.0, 0, 0, 0
    for count, room, seconds in chunks:
        now += seconds
        total += count
        batch = output.feed("stdout", b"x\n" * count, now, room=room)
        if batch is not None:
            handed, told = handed + len(batch.lines), told + batch.dropped
    assert handed + told + output.dropped == total
