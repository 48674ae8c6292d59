"""Resources: what users may write, fixed point without leftovers, and devices with exact ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.base.resources import (
    UNIT,
    DeviceBook,
    ResourceSet,
    default_arena_bytes,
    format_bytes,
    format_resources,
    nearest_name,
    parse_amount,
    parse_bytes,
    parse_resources,
    to_number,
)

# What users write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (0, 0),
        (1, 10_000),
        (0.5, 5_000),
        (0.0001, 1),
        (0.0003, 3),
        (1 / 3, 3_333),
        (2.0, 20_000),
        (1 / 6, 1_666),
    ],
)
def test_an_amount_is_rounded_down_to_a_unit(value: float, units: int) -> None:
    assert parse_amount("num_cpus", value) == units


def test_n_times_one_nth_fits_into_one() -> None:
    assert [n for n in range(1, 5000) if parse_amount("num_cpus", 1 / n) * n > UNIT] == []


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (-1, OptionError, ["num_cpus=-1", "negative", "0 or more"]),
        (0.00001, OptionError, ["num_cpus=1e-05", "0.0001"]),
        (float("nan"), OptionError, ["num_cpus=nan", "finite"]),
        (float("inf"), OptionError, ["num_cpus=inf", "finite"]),
        (1e18, OptionError, ["num_cpus=1e+18", "too much"]),
        ("2", OptionTypeError, ["num_cpus='2'", "str", "number", "num_cpus=0.5"]),
        (True, OptionTypeError, ["num_cpus=True", "bool"]),
        (None, OptionTypeError, ["num_cpus=None", "NoneType"]),
    ],
)
def test_a_bad_amount_is_refused_in_words(value: object, error: type[OptionError], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        parse_amount("num_cpus", value)
    assert [word for word in words if word not in str(caught.value)] == []
    assert caught.value.option == "num_cpus"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30), ("512 MB", 512 * 10**6), ("1.5g", 15 * 10**8), ("100", 100), (" 2 KiB ", 2048),
        ("1ti", 2**40), (4096, 4096), (4096.0, 4096), ("0", 0),
    ],
)  # fmt: skip
def test_a_size_may_have_a_unit(text: object, size: int) -> None:
    assert parse_bytes("memory", text) == size


@pytest.mark.parametrize("value", ["4 gigs", "GiB", "-1GiB", "1,5GiB", "", -5, "99999999TiB"])
def test_a_bad_size_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match=r"memory="):
        parse_bytes("memory", value)


@pytest.mark.parametrize("value", [1.5, None, True, b"1GiB"])
def test_a_size_of_a_wrong_type_is_refused(value: object) -> None:
    with pytest.raises(OptionTypeError, match=r'memory="4GiB"'):
        parse_bytes("memory", value)


@pytest.mark.parametrize(
    ("memory", "limit", "expected"),
    [
        (100 * 2**30, None, 30 * 2**30),
        (100 * 2**30, 10 * 2**30, 3 * 2**30),
        (10 * 2**30, 100 * 2**30, 3 * 2**30),
        (100 * 2**20, None, 64 * 2**20),
    ],
)
def test_the_default_arena_is_a_share_of_what_the_node_may_use(memory: int, limit: int | None, expected: int) -> None:
    assert default_arena_bytes(memory, limit) == expected


def test_the_default_arena_is_whole_pages() -> None:
    assert default_arena_bytes(1_234_567_890) % 4_096 == 0


def test_the_four_options_become_one_demand_without_zeros() -> None:
    demand = parse_resources(num_cpus=0, num_gpus=0.5, memory="1KiB", resources={"disk": 2})
    assert demand == {"GPU": 5_000, "memory": 1024 * UNIT, "disk": 20_000}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_gpus": 1.5}, ["num_gpus=1.5", "part of more than one device", "num_gpus=0.5"]),
        ({"resources": {"CPU": 1}}, ["resources['CPU']", "num_cpus=1"]),
        ({"resources": {"gpu": 1}}, ["num_gpus=1"]),
        ({"resources": {"disk": -1}}, ["resources['disk']=-1", "negative"]),
        ({"resources": {"": 1}}, ["name"]),
        ({"resources": {3: 1}}, ["name"]),
        ({"resources": [("disk", 1)]}, ["dict"]),
    ],
)
def test_a_bad_demand_names_the_option(options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        parse_resources(**options)
    assert [word for word in words if word not in str(caught.value)] == []


def test_amounts_read_as_people_write_them() -> None:
    demand = {"CPU": 20_000, "GPU": 5_000, "memory": 4 * 2**30 * UNIT, "disk": 0}
    assert format_resources(demand) == "2 CPU, 0.5 GPU, 4 GiB memory"
    assert format_resources({}) == "nothing"
    assert [format_bytes(size) for size in (0, 1023, 1536, 2**20, 2**45)] == [
        "0 B", "1023 B", "1.5 KiB", "1 MiB", "32 TiB",
    ]  # fmt: skip
    assert [to_number(units) for units in (20_000, 3_333)] == [2, 0.3333]


def test_a_misspelt_name_finds_its_neighbour() -> None:
    assert nearest_name("gpus", ["CPU", "GPU", "memory"]) == "GPU"
    assert nearest_name("tpu_pod", ["CPU", "GPU"]) == ""


# Sets -------------------------------------------------------------------------------------------------------

AMOUNTS = st.dictionaries(st.sampled_from(["CPU", "GPU", "disk"]), st.integers(0, 100_000))


@given(AMOUNTS, AMOUNTS)
def test_what_is_added_can_be_subtracted(first: dict[str, int], second: dict[str, int]) -> None:
    amounts = ResourceSet(first)
    amounts.add(second)
    assert amounts.fits(second)
    assert amounts.missing(second) == {}
    amounts.subtract(second)
    assert amounts == ResourceSet(first)
    assert amounts.fits(second) == (not amounts.missing(second))


def test_a_debt_fits_nothing_but_nothing() -> None:
    amounts = ResourceSet({"CPU": -1})
    assert amounts.fits({})
    assert not amounts.fits({"CPU": 1})
    assert amounts.names() == ["CPU"]


# Devices ----------------------------------------------------------------------------------------------------


def test_shares_gather_on_one_device_so_that_others_stay_whole() -> None:
    book = DeviceBook([0, 1])
    assert book.take(2_500) == [0]
    assert book.take(5_000) == [0]
    assert book.take(UNIT) == [1]
    assert not book.fits(UNIT)
    assert book.take(2_500) == [0]
    assert not book.fits(1)


def test_two_halves_on_two_devices_are_not_a_whole_one() -> None:
    book = DeviceBook([4, 7])
    first, second = book.take(6_000), book.take(6_000)
    assert (first, second) == ([4], [7])
    assert not book.fits(UNIT)
    book.give(first, 6_000)
    assert book.take(UNIT) == [4]


def test_a_type_gets_the_devices_that_have_it_and_no_others() -> None:
    book = DeviceBook([0, 1, 2], {0: "A100", 1: "T4", 2: "T4"})
    assert (book.capacity(), book.capacity("T4"), book.capacity("H100")) == (3 * UNIT, 2 * UNIT, 0)
    assert book.take(2_500, "T4") == [1]
    assert not book.fits(2 * UNIT, "T4")
    assert book.fits(2 * UNIT)
    assert book.take(5_000) == [1], "who does not care gets a share where others are"
    assert book.take(5_000, "A100") == [0]
    assert book.take(UNIT, "T4") == [2]
    assert not book.fits(5_000, "T4")
    book.give([2], UNIT)
    assert book.take(UNIT) == [2]


def test_only_a_type_of_its_own_is_wanted_of_a_book() -> None:
    book = DeviceBook([0, 1], {1: "T4"})
    assert book.wanted_type({"GPU": UNIT, "accelerator_type:T4": 10}) == "T4"
    assert book.wanted_type({"GPU": UNIT, "accelerator_type:v5e": 10}) == "", "that is another kind's"
    assert book.wanted_type({"GPU": UNIT}) == ""


class Devices(RuleBasedStateMachine):
    """DB-1 and DB-2 under any order of taking and giving back."""

    def __init__(self) -> None:
        super().__init__()
        self.book = DeviceBook(range(3))
        self.held: list[tuple[list[int], int]] = []

    @rule(units=st.one_of(st.integers(1, UNIT), st.sampled_from([UNIT, 2 * UNIT, 3 * UNIT])))
    def take(self, units: int) -> None:
        if self.book.fits(units):
            self.held.append((self.book.take(units), units))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        self.book.give(*self.held.pop(index))

    @invariant()
    def exact(self) -> None:
        used = dict.fromkeys(range(3), 0)
        for ids, units in self.held:
            assert len(ids) == max(1, units // UNIT), "DB-2: whole devices, or a share of one"
            for device in ids:
                used[device] += min(units, UNIT)
        assert {device: UNIT - left for device, left in self.book.free().items()} == used, "DB-1"


TestDevices = Devices.TestCase
