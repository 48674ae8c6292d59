"""What can be trusted of the bytes of a journal (JF-1 to JF-3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.protocol import journal_format
from actorflow._core.protocol.journal_format import (
    Change,
    JournalDamagedError,
    JournalSchemaError,
    encode_header,
    encode_record,
    encode_snapshot,
    read_segment,
    read_snapshot,
)

changes = st.builds(Change, st.sampled_from(["actor", "job"]), st.text(max_size=8), st.none() | st.binary(max_size=60))
writes = st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=6)


def segment_of(written: list[list[Change]], first: int, durable: list[int]) -> bytes:
    records = (encode_record(first + at, durable[at], write) for at, write in enumerate(written))
    return encode_header(first) + b"".join(records)


@given(writes, st.integers(1, 1 << 40))
def test_what_is_written_is_read(written: list[list[Change]], first: int) -> None:
    data = segment_of(written, first, [first - 1] * len(written))
    segment = read_segment(data, "journal-1")
    assert segment is not None
    assert (segment.first, segment.sound_bytes) == (first, len(data))
    assert [record.changes for record in segment.records] == written
    assert [record.number for record in segment.records] == list(range(first, first + len(written)))


@given(writes, st.data())
def test_jf_1_of_a_file_that_is_cut_a_prefix_is_read(written: list[list[Change]], data: st.DataObject) -> None:
    whole = segment_of(written, 1, [0] * len(written))
    cut = whole[: data.draw(st.integers(0, len(whole)))] + bytes(data.draw(st.integers(0, 40)))
    segment = read_segment(cut, "journal-1")
    if segment is None:
        assert len(cut.rstrip(b"\0")) < journal_format.HEADER_BYTES
        return
    read = [record.changes for record in segment.records]
    assert read == written[: len(read)]
    assert whole.startswith(cut[: segment.sound_bytes])


@given(writes, st.data())
def test_jf_1_a_bit_that_flipped_never_gives_what_was_not_written(written: list[list[Change]], data: st.DataObject) -> None:
    whole = bytearray(segment_of(written, 1, list(range(len(written)))))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        segment = read_segment(bytes(whole), "journal-1")
    except JournalDamagedError:
        return
    read = [] if segment is None else [record.changes for record in segment.records]
    assert read == written[:-1], "only of the last record nobody has said that it was durable"


def test_jf_2_what_a_later_record_calls_durable_is_not_cut() -> None:
    written = [[Change("job", "1", b"a" * 50)], [Change("job", "2", b"b" * 50)], [Change("job", "3", b"c" * 50)]]
    for durable, damaged in (([0, 0, 0], False), ([0, 1, 1], False), ([0, 0, 2], True)):
        data = segment_of(written, 1, durable)
        second = data.index(b"b" * 50)
        torn = data[: second + 3] + bytes(10) + data[second + 13 :]
        if damaged:
            with pytest.raises(JournalDamagedError, match="record 2, at byte .* is damaged, and record 3 behind it says"):
                read_segment(torn, "journal-1")
            segment = read_segment(torn, "journal-1", known=2)
            assert segment is not None, "what a snapshot has is not missed"
        else:
            segment = read_segment(torn, "journal-1")
            assert segment is not None
        assert [record.number for record in segment.records] == [1]


def test_jf_2_a_header_is_damaged_only_where_records_follow_it() -> None:
    data = segment_of([[Change("job", "1", b"a")]], 7, [6])
    assert read_segment(data[:10], "journal-7") is None
    assert read_segment(bytes(30), "journal-7") is None
    with pytest.raises(JournalDamagedError, match="journal-7: its header is damaged, and records follow it"):
        read_segment(bytes([data[0] ^ 1]) + data[1:], "journal-7")


def test_jf_3_a_later_schema_is_refused_with_what_to_do() -> None:
    data = encode_header(1, schema=journal_format.SCHEMA + 1)
    with pytest.raises(JournalSchemaError, match=r"journal-1 has schema 2, and this version .* knows schemas up to 1: start the head with"):
        read_segment(data, "journal-1")
    with pytest.raises(JournalSchemaError, match="snapshot-1"):
        read_snapshot(data, "snapshot-1")


def test_jf_3_an_earlier_schema_is_brought_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [Change("actor", "a", b"old"), Change("job", "j", None)]
    segment_data, snapshot_data = segment_of([written], 1, [0]), b"".join(encode_snapshot(4, written))

    def splits_actors(change: Change) -> list[Change]:
        return [change, Change("name", change.key, b"")] if change.kind == "actor" else [change]

    monkeypatch.setattr(journal_format, "SCHEMA", 3)
    monkeypatch.setattr(
        journal_format, "MIGRATIONS", {1: splits_actors, 2: lambda change: [Change(change.kind.upper(), change.key, change.value)]}
    )
    after = [Change("ACTOR", "a", b"old"), Change("NAME", "a", b""), Change("JOB", "j", None)]
    segment = read_segment(segment_data, "journal-1")
    assert segment is not None
    assert segment.records[0].changes == after
    assert read_snapshot(snapshot_data, "snapshot-4") == (4, after)


@given(st.lists(changes, max_size=40), st.integers(0, 1 << 40), st.integers(1, 300))
def test_a_snapshot_is_read_whole(state: list[Change], number: int, part_bytes: int) -> None:
    assert read_snapshot(b"".join(encode_snapshot(number, state, part_bytes)), "snapshot") == (number, state)


@given(st.lists(changes, max_size=10), st.data())
def test_a_snapshot_that_is_cut_or_changed_is_an_error(state: list[Change], data: st.DataObject) -> None:
    whole = b"".join(encode_snapshot(9, state, 100))
    at = data.draw(st.integers(0, len(whole) - 1))
    for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]):
        with pytest.raises(JournalDamagedError, match="snapshot-9"):
            read_snapshot(broken, "snapshot-9")


def test_a_record_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_format, "RECORD_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="a record of .* bytes: at most 100 fit"):
        encode_record(1, 0, [Change("actor", "a", bytes(200))])
