"""The object store's book: extents, pins, waiting for room. No memory is touched."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.policy.extent_records import AskOwner, Denied, Freed, Granted, ReadIn, WriteOut
from actorflow._core.policy.extents import PAGE_BYTES, FreeSpace
from actorflow._core.policy.object_store import ANSWER_S, DISK_FAILED_S, REFUSED_S, ExtentBook

PAGE = PAGE_BYTES


def granted(book: ExtentBook, client: str, size: int, owner: str = "") -> Granted:
    answer = book.allocate(client, 1, size, 0.0)
    assert isinstance(answer, Granted), answer
    assert book.hand_over(client, answer.extent, owner or client)
    return answer


def served(book: ExtentBook, now: float) -> list[Granted]:
    return [answer for answer in book.serve(now) if isinstance(answer, Granted)]


# Free space -------------------------------------------------------------------------------------------------


def test_the_best_fit_is_taken_and_neighbours_are_joined() -> None:
    space = FreeSpace(100)
    starts = [space.take(10) for _ in range(10)]
    assert starts == list(range(0, 100, 10))
    space.give(10, 10)
    space.give(50, 10)
    space.give(60, 10)
    assert space.extents() == [(10, 10), (50, 20)]
    assert space.take(9) == 10, "the smaller piece, though both fit"
    assert space.take(11) == 50
    assert space.largest() == 9
    assert space.take(10) is None


def test_a_piece_that_fits_exactly_is_found_among_all_others() -> None:
    space = FreeSpace(1_000_000)
    sizes = list(range(1, 1000))
    random.Random(7).shuffle(sizes)
    starts = {}
    for size in sizes:
        starts[size] = space.take(size)
        space.take(1)
    for size in sizes:
        space.give(starts[size], size)
    for size in (17, 500, 999, 33):
        assert space.take(size) == starts[size]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_everything_given_back_is_one_piece_again(sizes: list[int], rng: random.Random) -> None:
    space = FreeSpace(100_000)
    taken = [(start, size) for size in sizes if (start := space.take(size)) is not None]
    rng.shuffle(taken)
    for start, size in taken:
        space.give(start, size)
    assert space.extents() == [(0, 100_000)]
    assert (space.free, space.largest()) == (100_000, 100_000)


# Allocating and freeing -------------------------------------------------------------------------------------


def test_extents_are_page_aligned_and_their_numbers_are_new() -> None:
    book = ExtentBook(10 * PAGE)
    first, second = granted(book, "a", 1), granted(book, "a", PAGE + 1)
    assert (first.offset, second.offset) == (0, PAGE)
    assert book.free(first.extent, 0.0) == Freed(first.extent, 0, PAGE)
    third = granted(book, "a", PAGE)
    assert third.offset == 0
    assert third.extent not in (first.extent, second.extent)
    assert book.used_bytes() == 3 * PAGE
    book.check()


def test_free_is_idempotent_and_waits_for_the_last_pin() -> None:
    book = ExtentBook(10 * PAGE)
    extent = granted(book, "a", PAGE).extent
    assert book.pin("b", extent)
    assert book.pin("b", extent)
    assert book.free(extent, 0.0) is None
    assert book.free(extent, 0.0) is None
    assert not book.pin("c", extent), "ST-3: nobody can ask for it any more"
    assert book.unpin("b", extent, 0.0) is None
    assert book.unpin("nobody", extent, 0.0) is None
    assert book.unpin("b", extent, 0.0) == Freed(extent, 0, PAGE)
    assert book.unpin("b", extent, 0.0) is None
    assert not book.pin("b", 99)


def test_a_lost_client_drops_its_pins_and_its_extents_but_not_what_others_read() -> None:
    book = ExtentBook(10 * PAGE)
    mine, read_by_b, result = (
        granted(book, "a", 1),
        granted(book, "a", 1),
        granted(book, "worker", 1, owner="a"),
    )
    theirs = granted(book, "b", 1)
    book.pin("b", read_by_b.extent)
    book.pin("a", theirs.extent)
    freed = book.client_lost("a", 0.0)
    assert sorted(range_.extent for range_ in freed) == [mine.extent, result.extent]
    book.check()
    [last] = book.client_lost("b", 0.0)[:1]
    assert {last.extent} <= {read_by_b.extent, theirs.extent}
    assert book.used_bytes() == 0
    assert book.client_lost("a", 0.0) == []


def test_a_result_belongs_to_its_writer_until_it_is_handed_over() -> None:
    book = ExtentBook(10 * PAGE)
    half_written, result = granted(book, "w", 1), granted(book, "w", 1, owner="a")
    assert book.hand_over("w", result.extent, "a"), "idempotent"
    assert not book.hand_over("w", result.extent, "b"), "it is not the writer's any more"
    assert not book.hand_over("w", 99, "a")
    assert [range_.extent for range_ in book.client_lost("w", 0.0)] == [half_written.extent]
    assert [range_.extent for range_ in book.client_lost("a", 0.0)] == [result.extent]
    assert book.used_bytes() == 0


# Full -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"), [(11 * PAGE, ["44 KiB", "40 KiB", "object_store_memory"]), (0, ["1 byte"])]
)
def test_what_can_never_fit_is_denied_at_once(size: int, words: list[str]) -> None:
    answer = ExtentBook(10 * PAGE).allocate("a", 7, size, 0.0)
    assert isinstance(answer, Denied)
    assert [word for word in words if word not in answer.reason] == []


def test_st_4_those_who_wait_are_served_in_order() -> None:
    book = ExtentBook(10 * PAGE)
    _, second = granted(book, "a", 4 * PAGE), granted(book, "a", 4 * PAGE)
    assert book.allocate("b", 1, 5 * PAGE, 0.0) is None
    assert book.allocate("c", 2, PAGE, 0.0) is None, "it would fit, but somebody came before"
    assert book.used_bytes() == 8 * PAGE, "SEMANTICS 16: to wait is to hold nothing"
    assert book.serve(0.0) == []
    book.free(second.extent, 1.0)
    assert [(g.client, g.token) for g in served(book, 1.0)] == [("b", 1), ("c", 2)]
    assert book.waiting == 0


def test_semantics_16_no_progress_for_ten_seconds_is_an_error_that_lists_holder_and_waiter() -> None:
    book = ExtentBook(10 * PAGE, patience_s=10.0)
    big = granted(book, "d1", 9 * PAGE)
    book.pin("d1", big.extent)
    assert book.allocate("w1", 5, 3 * PAGE, 0.0) is None
    assert book.expire(9.9) == []
    [denied] = book.expire(10.0, {"d1": "driver d1", "w1": "worker w1"}.__getitem__)
    assert (denied.client, denied.token) == ("w1", 5)
    expected = [
        "12 KiB asked for by worker w1",
        "within 10 s",
        "has 40 KiB",
        "36 KiB used",
        "36 KiB pinned (36 KiB by driver d1)",
    ]
    expected.append("largest free piece is 4 KiB")
    assert [words for words in expected if words not in denied.reason] == []
    assert book.waiting == 0


def test_one_for_whom_there_is_room_is_not_denied_with_the_one_before_it() -> None:
    book = ExtentBook(10 * PAGE, patience_s=10.0)
    granted(book, "a", 8 * PAGE)
    assert book.allocate("b", 1, 5 * PAGE, 0.0) is None
    assert book.allocate("b", 2, 4 * PAGE, 0.0) is None
    assert book.allocate("b", 3, 2 * PAGE, 0.0) is None
    assert book.allocate("b", 4, 3 * PAGE, 0.0) is None
    assert [denied.token for denied in book.expire(10.0)] == [1, 2]
    assert [g.token for g in served(book, 10.0)] == [3]
    assert book.expire(19.9) == [], "and that was progress"
    assert [denied.token for denied in book.expire(20.0)] == [4]


def test_progress_gives_the_waiting_more_time() -> None:
    book = ExtentBook(10 * PAGE, patience_s=10.0)
    first, second = granted(book, "a", PAGE), granted(book, "a", 9 * PAGE)
    assert book.allocate("b", 1, 10 * PAGE, 0.0) is None
    book.free(first.extent, 8.0)
    assert book.expire(12.0) == []
    book.free(second.extent, 13.0)
    assert len(book.serve(13.0)) == 1


def test_the_queue_has_a_bound_and_a_lost_client_leaves_it() -> None:
    book = ExtentBook(PAGE, waiting_max=2)
    granted(book, "a", PAGE)
    assert book.allocate("b", 1, PAGE, 0.0) is None
    assert book.allocate("c", 2, PAGE, 0.0) is None
    full = book.allocate("d", 3, PAGE, 0.0)
    assert isinstance(full, Denied)
    assert "2 allocations wait" in full.reason
    book.client_lost("b", 0.0)
    book.client_lost("a", 0.0)
    assert [g.token for g in served(book, 0.0)] == [2]
    book.check()


# Everything at once -----------------------------------------------------------------------------------------

# Slabs ------------------------------------------------------------------------------------------------------


def slab_of(book: ExtentBook, client: str, size: int) -> Granted:
    answer = book.allocate_slab(client, 1, size)
    assert isinstance(answer, Granted), answer
    return answer


def test_st_5_a_slab_is_carved_from_its_front_in_the_order_of_the_numbers() -> None:
    book = ExtentBook(100 * PAGE)
    slab = slab_of(book, "a", 8 * PAGE)
    assert book.carve("a", slab.extent | 1, PAGE + 1)
    assert book.carve("a", slab.extent | 2, PAGE)
    assert not book.carve("a", slab.extent | 4, PAGE), "3 comes first"
    assert not book.carve("b", slab.extent | 3, PAGE), "not b's slab"
    assert not book.carve("a", slab.extent | 3, 6 * PAGE), "5 pages are left"
    assert [(e.number, e.offset, e.size) for e in book.extents() if e.carved is None] == [
        (slab.extent | 1, slab.offset, PAGE + 1),
        (slab.extent | 2, slab.offset + 2 * PAGE, PAGE),
    ]
    book.check()


def test_st_5_the_book_knows_what_is_still_to_come_and_what_is_gone() -> None:
    book = ExtentBook(100 * PAGE)
    slab = slab_of(book, "a", 4 * PAGE)
    assert book.to_come(slab.extent | 1)
    assert book.carve("a", slab.extent | 1, PAGE)
    assert not book.to_come(slab.extent | 1)
    assert book.pin("b", slab.extent | 1)
    assert book.free(slab.extent | 1, 0.0) is None, "pinned"
    assert not book.to_come(slab.extent | 1)
    assert book.to_come(slab.extent | 2)
    assert book.free(slab.extent, 0.0) == Freed(slab.extent, slab.offset + PAGE, 3 * PAGE)
    assert not book.to_come(slab.extent | 2), "its slab was given back"
    assert not book.carve("a", slab.extent | 2, PAGE)
    book.check()


def test_a_slab_that_is_used_up_is_no_extent_any_more() -> None:
    book = ExtentBook(100 * PAGE)
    slab = slab_of(book, "a", 2 * PAGE)
    assert book.carve("a", slab.extent | 1, 2 * PAGE)
    assert [e.number for e in book.extents()] == [slab.extent | 1]
    assert book.slab_clients() == []
    book.check()


def test_st_6_a_slab_never_waits_and_leaves_half_of_the_arena() -> None:
    book = ExtentBook(100 * PAGE)
    slab_of(book, "a", 50 * PAGE)
    assert isinstance(book.allocate_slab("b", 1, PAGE), Denied)
    assert book.waiting == 0
    assert book.allocate("b", 2, 60 * PAGE, 0.0) is None
    assert book.slab_clients() == ["a"]


def test_what_a_slab_holds_belongs_to_its_client_and_goes_with_it() -> None:
    book = ExtentBook(100 * PAGE)
    slab = slab_of(book, "a", 8 * PAGE)
    assert book.carve("a", slab.extent | 1, PAGE)
    assert book.carve("a", slab.extent | 2, PAGE)
    assert book.hand_over("a", slab.extent | 2, "b")
    assert book.written_by("a") == {"b": [slab.extent | 2]}
    assert {freed.extent for freed in book.client_lost("a", 0.0)} == {slab.extent, slab.extent | 1}
    assert [e.number for e in book.extents()] == [slab.extent | 2]
    assert book.free_ranges() == [(0, PAGE), (2 * PAGE, 98 * PAGE)]
    book.check()


# To disk and back -------------------------------------------------------------------------------------------


def full_book(count: int = 10) -> tuple[ExtentBook, list[int]]:
    """A book of 10 pages with `count` extents of one page, all of `a`."""
    book = ExtentBook(10 * PAGE, spills=True)
    return book, [granted(book, "a", PAGE).extent for _ in range(count)]


def owner_of(book: ExtentBook, number: int) -> str:
    return next(extent.owner for extent in book.extents() if extent.number == number)


def gone_to_disk(book: ExtentBook, number: int, now: float = 0.0) -> None:
    [write] = book.owner_says(owner_of(book, number), [number], [], now)
    assert isinstance(write, WriteOut)
    freed = book.written(number, now)
    assert freed is not None
    assert freed.size


def test_st_7_from_eighty_percent_on_owners_are_asked_for_what_was_unused_longest() -> None:
    book, numbers = full_book(8)
    assert book.spill(0.0) == []
    numbers.append(granted(book, "b", PAGE).extent)
    assert book.pin("x", numbers[0])
    assert book.unpin("x", numbers[0], 0.0) is None
    assert book.spill(0.0) == [AskOwner("a", (numbers[1],))], "the first was read since"
    assert book.spill(0.0) == [], "asked already"
    assert book.owner_says("a", [numbers[1]], [], 0.0) == [WriteOut(numbers[1], PAGE, PAGE)]
    assert book.used_bytes() == 9 * PAGE
    assert book.written(numbers[1], 0.0) == Freed(numbers[1], PAGE, PAGE)
    assert (book.used_bytes(), book.spilled_bytes) == (8 * PAGE, PAGE)
    assert book.is_away(numbers[1])
    assert book.spill(0.0) == []
    book.check()


def test_st_7_what_its_owner_reads_stays_and_is_asked_for_later() -> None:
    book, numbers = full_book(9)
    assert book.spill(0.0) == [AskOwner("a", (numbers[0],))]
    assert book.owner_says("a", [], [numbers[0]], 0.0) == []
    assert book.spill(0.1) == [AskOwner("a", (numbers[1],))]
    for number in numbers[1:]:
        book.owner_says("a", [], [number], 0.1)
        book.spill(0.2)
    assert book.asks_again
    assert book.spill(0.3) == []
    assert book.spill(0.1 + REFUSED_S) == [AskOwner("a", (numbers[0],))]
    book.check()


def test_st_7_what_is_pinned_before_it_has_left_stays_and_its_file_is_good_for_the_next_time() -> None:
    book, numbers = full_book(9)
    first = numbers[0]
    book.spill(0.0)
    book.owner_says("a", [first], [], 0.0)
    assert book.pin("b", first), "the disk only reads it"
    assert book.written(first, 0.0) is None
    assert not book.is_away(first)
    for number in numbers[1:]:
        assert book.pin("x", number)
    assert book.unpin("b", first, 0.0) is None
    assert book.spill(0.0) == [Freed(first, 0, PAGE)]
    book.check()


def test_what_is_on_disk_already_leaves_at_once() -> None:
    book, numbers = full_book(9)
    first = numbers[0]
    book.spill(0.0)
    gone_to_disk(book, first)
    assert book.restore(first, 0.0) == ReadIn(first, 0, PAGE)
    assert book.restored(first, 0.0) is None
    for number in numbers[1:]:
        assert book.pin("x", number)
    assert book.spill(0.0) == [Freed(first, 0, PAGE)], "no question, no write"
    assert book.is_away(first)
    book.check()


def test_what_comes_back_waits_for_its_turn_and_is_read_once() -> None:
    book, numbers = full_book(10)
    for number in numbers[:2]:
        book.spill(0.0)
        gone_to_disk(book, number)
    rest = [granted(book, "a", PAGE).extent for _ in range(2)]
    assert book.allocate("b", 7, PAGE, 0.0) is None
    assert book.restore(numbers[0], 0.0) is None
    assert book.restore(numbers[0], 0.0) is None, "on its way already"
    book.free(rest[0], 0.0)
    book.free(rest[1], 0.0)
    [first, second] = book.serve(0.0)
    assert isinstance(first, Granted)
    assert isinstance(second, ReadIn)
    assert second.extent == numbers[0]
    assert book.restored(numbers[0], 0.0) is None
    assert book.pin("b", numbers[0])
    book.check()


def begin_to_leave(book: ExtentBook, number: int) -> None:
    """Have this one written to disk: all others are being read at the moment."""
    others = [extent.number for extent in book.extents() if extent.number != number and not book.is_away(extent.number)]
    for other in others:
        book.pin("x", other)
    [asks] = book.spill(0.0)
    assert asks == AskOwner("a", (number,))
    assert book.owner_says("a", [number], [], 0.0) == [WriteOut(number, book.offset(number), PAGE)]
    for other in others:
        book.unpin("x", other, 0.0)


def test_st_8_what_is_freed_while_it_is_on_disk_or_on_its_way_is_deleted_in_the_end() -> None:
    book, numbers = full_book(10)
    away, coming, waiting, leaving = numbers[:4]
    for number in (away, coming, waiting):
        begin_to_leave(book, number)
        assert book.written(number, 0.0) is not None
        granted(book, "a", PAGE)
    begin_to_leave(book, leaving)
    book.free(numbers[5], 0.0)
    assert isinstance(book.restore(coming, 0.0), ReadIn)
    assert book.restore(waiting, 0.0) is None
    assert book.waiting == 1
    assert book.free(away, 0.0) == Freed(away, 0, 0, on_disk=True)
    assert book.free(waiting, 0.0) == Freed(waiting, 0, 0, on_disk=True)
    assert book.waiting == 0
    assert book.free(leaving, 0.0) is None
    assert book.free(coming, 0.0) is None
    book.check()
    for freed in (book.written(leaving, 0.0), book.restored(coming, 0.0)):
        assert freed is not None
        assert freed.on_disk
        assert freed.size == PAGE
    assert book.spilled_bytes == 0
    book.check()


def test_semantics_16_what_its_owner_will_not_let_go_is_named_in_the_error_of_a_full_store() -> None:
    book, _ = full_book(10)
    assert book.allocate("w", 1, 2 * PAGE, 0.0) is None
    while steps := book.spill(0.0):
        [asks] = steps
        assert isinstance(asks, AskOwner)
        assert book.owner_says("a", [], list(asks.extents), 0.0) == []
    [denied] = book.expire(20.0, {"a": "driver a", "w": "worker w"}.__getitem__)
    assert "0 B pinned, 40 KiB in use where it was made (40 KiB by driver a), the largest" in denied.reason
    book.check()


def test_a_full_disk_is_tried_again_later_and_the_error_of_a_full_store_names_it() -> None:
    book, _ = full_book(10)
    assert book.allocate("b", 1, 2 * PAGE, 0.0) is None
    [asks] = book.spill(0.0)
    assert isinstance(asks, AskOwner)
    assert len(asks.extents) == 2, "as much as the first one who waits needs"
    book.owner_says("a", list(asks.extents), [], 0.0)
    for number in asks.extents:
        assert book.disk_failed(number, "No space left on device", 0.0) is None
    assert book.spill(0.9) == []
    [denied] = book.expire(20.0)
    assert "spilling fails: No space left on device" in denied.reason
    assert book.allocate("b", 2, PAGE, 20.0) is None
    [again] = book.spill(20.0)
    assert isinstance(again, AskOwner), "the others come first"
    book.check()


def test_what_cannot_be_read_stays_on_disk() -> None:
    book, numbers = full_book(9)
    book.spill(0.0)
    gone_to_disk(book, numbers[0])
    assert isinstance(book.restore(numbers[0], 0.0), ReadIn)
    assert book.not_restored(numbers[0], 0.0) == Freed(numbers[0], 0, PAGE)
    assert book.is_away(numbers[0])
    assert (book.used_bytes(), book.spilled_bytes) == (8 * PAGE, PAGE)
    book.check()


def test_a_result_on_its_way_to_its_owner_is_not_taken_from_it() -> None:
    """Its writer is asked, who does not answer for it any more when it has handed it over."""
    book, _ = full_book(8)
    result = granted(book, "w", PAGE).extent
    for number in [extent.number for extent in book.extents() if extent.owner == "a"]:
        book.pin("x", number)
    assert book.spill(0.0) == [AskOwner("w", (result,))]
    assert book.hand_over("w", result, "a")
    assert book.spill(0.0) == [AskOwner("a", (result,))], "also when the writer never answers"
    assert book.owner_says("w", [], [result], 0.0) == [], "it is not the writer's to say any more"
    assert book.owner_says("a", [result], [], 0.0) == [WriteOut(result, book.offset(result), PAGE)]
    book.check()


def test_an_owner_that_does_not_answer_keeps_nobody_else_from_being_asked() -> None:
    book = ExtentBook(10 * PAGE, spills=True)
    silent = [granted(book, "silent", PAGE).extent for _ in range(3)]
    others = [granted(book, "a", PAGE).extent for _ in range(7)]
    assert book.allocate("b", 1, 4 * PAGE, 0.0) is None
    assert book.spill(0.0) == [AskOwner("silent", tuple(silent))]
    assert book.spill(0.1) == [], "about a quarter of the arena at a time"
    assert book.spill(ANSWER_S) == [AskOwner("a", tuple(others[:3]))]
    assert book.owner_says("silent", [silent[0]], [], 2.0) == [WriteOut(silent[0], 0, PAGE)], "a late answer is one, too"
    book.check()


def test_without_a_disk_nothing_leaves() -> None:
    book = ExtentBook(10 * PAGE)
    for _ in range(10):
        granted(book, "a", PAGE)
    assert book.spill(0.0) == []


CLIENTS = st.sampled_from(["a", "b", "c"])


class Store(RuleBasedStateMachine):
    """ST-1 to ST-8 under any order of events, against a model of who owns, who reads, and what is where."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.owner: dict[int, str] = {}
        self.place: dict[int, tuple[int | None, int]] = {}
        self.freed: set[int] = set()
        self.pins: dict[tuple[str, int], int] = {}
        self.waiting: list[object] = []
        """Tokens, and ("back", number) for what comes from disk."""
        self.token = 0
        self.seen = 0
        self.slabs: dict[int, tuple[str, int, int]] = {}
        """client, objects carved, bytes left"""
        self.asked: dict[int, str] = {}
        self.agreed: set[int] = set()
        self.writing: set[int] = set()
        self.reading: set[int] = set()
        self.awaited: set[int] = set()
        self.away: set[int] = set()
        self.files: set[int] = set()

    @initialize(size=st.integers(1, 64), spills=st.booleans())
    def start(self, size: int, spills: bool) -> None:
        self.book = ExtentBook(size * PAGE + 17, waiting_max=4, spills=spills)
        self.spills = spills

    def took(self, answers: list[Granted | ReadIn]) -> None:
        for answer in answers:
            if isinstance(answer, ReadIn):
                assert answer.extent in self.awaited, "ST-7"
                self.awaited.discard(answer.extent)
                self.reading.add(answer.extent)
                self.place[answer.extent] = (answer.offset, answer.size)
                continue
            assert answer.extent > self.seen, "ST-3"
            self.seen = answer.extent
            self.owner[answer.extent] = answer.client
            self.place[answer.extent] = (answer.offset, answer.size)

    def gone(self, freed: list[Freed]) -> None:
        for range_ in freed:
            number = range_.extent
            assert not any(n == number for _, n in self.pins), "ST-2: not while pinned"
            offset, size = self.place[number]
            if range_.size:
                assert offset == range_.offset
            if number in self.freed:
                assert number not in self.writing | self.reading, "ST-2: the disk is at it"
                assert range_.on_disk == (number in self.files), "ST-8"
                assert bool(range_.size) == (offset is not None)
                self.files.discard(number)
                self.away.discard(number)
                self.awaited.discard(number)
                self.asked.pop(number, None)
                self.freed.discard(number)
                del self.owner[number], self.place[number]
            else:
                assert number in self.files, "ST-7: its content is on disk"
                assert number in self.agreed, "ST-7: its owner knows"
                self.away.add(number)
                self.place[number] = (None, size)
        answers = self.book.serve(self.now)
        tokens: list[object] = [("back", a.extent) if isinstance(a, ReadIn) else a.token for a in answers]
        assert tokens == self.waiting[: len(answers)], "ST-4"
        del self.waiting[: len(answers)]
        self.took(answers)

    @rule(client=CLIENTS, size=st.integers(1, 70 * PAGE))
    def allocate(self, client: str, size: int) -> None:
        self.token += 1
        answer = self.book.allocate(client, self.token, size, self.now)
        if isinstance(answer, Granted):
            assert not self.waiting, "ST-4"
            self.took([answer])
        elif answer is None:
            self.waiting.append(self.token)
            self.clients_waiting = getattr(self, "clients_waiting", {}) | {self.token: client}

    @rule(client=CLIENTS, count=st.integers(1, 8))
    def allocate_slab(self, client: str, count: int) -> None:
        answer = self.book.allocate_slab(client, 0, count * PAGE)
        if isinstance(answer, Granted):
            assert not self.waiting, "ST-6"
            assert answer.extent > self.seen, "ST-3"
            self.seen = answer.extent
            self.slabs[answer.extent] = (client, 0, count * PAGE)

    @precondition(lambda self: self.slabs)
    @rule(data=st.data(), client=CLIENTS, size=st.integers(1, 4 * PAGE))
    def carve(self, data: st.DataObject, client: str, size: int) -> None:
        slab = data.draw(st.sampled_from(sorted(self.slabs)))
        owner, carved, left = self.slabs[slab]
        taken = -(-size // PAGE) * PAGE
        number = slab | (carved + 1)
        assert self.book.to_come(number)
        may = owner == client and taken <= left
        assert self.book.carve(client, number, size) == may, "ST-5"
        if may:
            [extent] = [e for e in self.book.extents() if e.number == number]
            self.owner[number] = client
            self.place[number] = (extent.offset, size)
            self.slabs[slab] = (owner, carved + 1, left - taken)
            if left == taken:
                del self.slabs[slab]

    @precondition(lambda self: self.slabs)
    @rule(data=st.data())
    def give_slab_back(self, data: st.DataObject) -> None:
        slab = data.draw(st.sampled_from(sorted(self.slabs)))
        _, carved, left = self.slabs.pop(slab)
        freed = self.book.free(slab, self.now)
        assert freed is not None
        assert freed.size == left
        assert not self.book.to_come(slab | (carved + 1))
        self.gone([])

    @precondition(lambda self: self.place)
    @rule(data=st.data(), client=CLIENTS, owner=CLIENTS)
    def hand_over(self, data: st.DataObject, client: str, owner: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.place)))
        before = self.owner[number]
        may = before in (client, owner) and number not in self.freed
        assert self.book.hand_over(client, number, owner) == may
        if may:
            if before != owner:
                self.asked.pop(number, None)
            self.owner[number] = owner

    @precondition(lambda self: self.place)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.place)))
        self.freed.add(number)
        self.asked.pop(number, None)
        if number in self.awaited:
            self.awaited.discard(number)
            self.waiting.remove(("back", number))
        freed = self.book.free(number, self.now)
        self.gone([freed] if freed else [])

    @precondition(lambda self: self.place)
    @rule(data=st.data(), client=CLIENTS)
    def pin(self, data: st.DataObject, client: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.place)))
        assert self.book.is_away(number) == (number in self.away - self.freed)
        if self.book.is_away(number):
            self.restore(number)
            return
        assert self.book.pin(client, number) == (number not in self.freed), "ST-3"
        if number not in self.freed:
            self.pins[client, number] = self.pins.get((client, number), 0) + 1

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        client, number = data.draw(st.sampled_from(sorted(self.pins)))
        self.pins[client, number] -= 1
        if not self.pins[client, number]:
            del self.pins[client, number]
        freed = self.book.unpin(client, number, self.now)
        self.gone([freed] if freed else [])

    def restore(self, number: int) -> None:
        step = self.book.restore(number, self.now)
        known = number in self.awaited or number in self.reading
        if isinstance(step, ReadIn):
            assert not known
            assert not self.waiting, "ST-4"
            self.awaited.add(number)
            self.took([step])
        elif step is None and not known:
            self.awaited.add(number)
            self.waiting.append(("back", number))
        elif step is not None:
            assert not known

    @rule()
    def spill(self) -> None:
        self.now += 0.1
        self.carry_out(self.book.spill(self.now))

    def carry_out(self, steps: list[AskOwner | WriteOut | Freed]) -> None:
        for step in steps:
            assert self.spills
            if isinstance(step, AskOwner):
                for number in step.extents:
                    assert self.owner[number] == step.owner
                    assert number not in self.agreed | self.freed
                    self.asked[number] = step.owner
            elif isinstance(step, WriteOut):
                assert step.extent in self.agreed, "ST-7: its owner knows"
                assert not any(n == step.extent for _, n in self.pins), "ST-7: nobody reads it"
                assert self.place[step.extent] == (step.offset, step.size)
                self.writing.add(step.extent)
            else:
                self.gone([step])

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), may=st.booleans())
    def owner_says(self, data: st.DataObject, may: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.asked)))
        owner = self.asked.pop(number)
        if may:
            self.agreed.add(number)
        steps = self.book.owner_says(owner, [number] if may else [], [] if may else [number], self.now)
        self.carry_out(list(steps))

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), works=st.booleans())
    def wrote(self, data: st.DataObject, works: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.writing)))
        self.writing.discard(number)
        if works:
            self.files.add(number)
            freed = self.book.written(number, self.now)
        else:
            freed = self.book.disk_failed(number, "broken", self.now)
            self.now += DISK_FAILED_S
        self.gone([freed] if freed else [])

    @precondition(lambda self: self.reading)
    @rule(data=st.data(), works=st.booleans(), client=CLIENTS)
    def did_read(self, data: st.DataObject, works: bool, client: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.reading)))
        self.reading.discard(number)
        self.away.discard(number)
        if works:
            freed = self.book.restored(number, self.now)
            if number not in self.freed:
                self.pin_now(client, number)
            self.gone([freed] if freed else [])
        else:
            self.away.add(number)
            self.gone([self.book.not_restored(number, self.now)])

    def pin_now(self, client: str, number: int) -> None:
        assert self.book.pin(client, number)
        self.pins[client, number] = self.pins.get((client, number), 0) + 1

    @rule(client=CLIENTS)
    def lose(self, client: str) -> None:
        waiting = getattr(self, "clients_waiting", {})
        self.pins = {key: count for key, count in self.pins.items() if key[0] != client}
        self.freed |= {number for number, owner in self.owner.items() if owner == client}
        self.asked = {number: owner for number, owner in self.asked.items() if number not in self.freed}
        self.awaited -= self.freed
        self.waiting = [
            token for token in self.waiting
            if (token[1] not in self.freed if isinstance(token, tuple) else waiting[token] != client)
        ]
        lost = {slab for slab, (owner, _, _) in self.slabs.items() if owner == client}
        freed = self.book.client_lost(client, self.now)
        assert lost == {range_.extent for range_ in freed} & set(self.slabs)
        self.slabs = {slab: record for slab, record in self.slabs.items() if slab not in lost}
        self.gone([range_ for range_ in freed if range_.extent not in lost])

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        denied: list[object] = [d.token if d.client else ("back", d.token) for d in self.book.expire(self.now)]
        assert denied == self.waiting[: len(denied)]
        self.awaited -= {token[1] for token in denied if isinstance(token, tuple)}
        del self.waiting[: len(denied)]

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "book"):
            self.book.check()
            assert {e.number for e in self.book.extents()} == set(self.place) | set(self.slabs)
            assert self.book.waiting == len(self.waiting)


Store.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestStore = Store.TestCase
