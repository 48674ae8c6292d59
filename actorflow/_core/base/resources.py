"""Resources: amounts in fixed point, sizes such as "4GiB", and the ids of devices.

Amounts are whole numbers of units, 10,000 units to one, so that a third of a GPU taken and given back a
million times leaves nothing behind. Floats exist only at the door (`parse_*`) and on the way out (`to_number`
and `format_*`). Resources are admission control: they say how much may run at once, and limit nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.base.texts import check_encodable

UNIT = 10_000
"""Units in an amount of 1."""
AMOUNT_MAX = (1 << 63) // UNIT - 1
"""The largest amount: in units it still fits a signed 64-bit integer (as bytes of memory: 838 TiB)."""

ARENA_SHARE = 0.3
"""Of the memory this node may use: the size of its store of large objects, unless the user says. Precedent: Ray."""
ARENA_BYTES_MIN = 64 * 1024 * 1024
ARENA_BYTES_STEP = 64 * 1024
"""Whole pages, whatever the size of a page is."""

CPU, GPU, TPU, MEMORY = "CPU", "GPU", "TPU", "memory"
DEVICE_NAMES = (GPU, TPU)
"""The resources that are devices with ids: a share of one is given, or whole ones."""
ACCELERATOR_TYPE = "accelerator_type:"
"""A node has one of `accelerator_type:A100` when it has an A100; who needs one there takes next to nothing of it."""

_OPTION_OF = {"cpu": "num_cpus", "gpu": "num_gpus", "memory": "memory"}
_BYTES = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
_BYTE_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30, "gib": 2**30,
    "ti": 2**40, "tib": 2**40,
}  # fmt: skip


def default_arena_bytes(memory_bytes: int, cgroup_limit_bytes: int | None = None) -> int:
    """How large an arena is unless the user says: a share of the memory, or of the container's limit."""
    memory = memory_bytes if cgroup_limit_bytes is None else min(memory_bytes, cgroup_limit_bytes)
    share = max(int(memory * ARENA_SHARE), ARENA_BYTES_MIN)
    return share // ARENA_BYTES_STEP * ARENA_BYTES_STEP


def parse_amount(option: str, value: object) -> int:
    """Return the user's number `value` in units, rounded down to 1/10000 (so that six times 1/6 fits into 1).

    Raises OptionError, which names `option`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(option, value, f"A number is right, as in {option}=0.5")
    if not math.isfinite(value):
        raise _wrong(option, value, "is not a finite number", "Give an amount, 0 or more")
    if value < 0:
        raise _wrong(option, value, "is negative", "Give 0 or more")
    if value > AMOUNT_MAX:
        raise _wrong(option, value, "is too much", f"The largest amount of a resource is {AMOUNT_MAX}")
    units = value * UNIT if isinstance(value, int) else math.floor(value * UNIT + 1e-6)
    if units == 0 and value > 0:
        raise _wrong(option, value, "is too little", "The smallest amount is 0.0001; give that, or 0")
    return units


def parse_bytes(option: str, value: object) -> int:
    """Return a size in bytes: a whole number, or text as "4GiB", "512 MB" or "1.5g". Raises OptionError."""
    if isinstance(value, str):
        size = _bytes_from_text(option, value)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, float) and value.is_integer():
        size = int(value)
    else:
        raise _wrong_type(option, value, f'A size is a whole number of bytes or text, as in {option}="4GiB"')
    if size < 0:
        raise _wrong(option, value, "is negative", "Give 0 or more bytes")
    if size > AMOUNT_MAX:
        raise _wrong(option, value, "is too much", f"The largest size is {format_bytes(AMOUNT_MAX)}")
    return size


def _bytes_from_text(option: str, text: str) -> int:
    match = _BYTES.fullmatch(text)
    factor = _BYTE_UNITS.get(match[2].lower()) if match is not None else None
    if match is None or factor is None:
        right = f'{option}="4GiB" (KiB, MiB, GiB and TiB; KB, MB, GB and TB are powers of ten)'
        raise _wrong(option, text, "is not a size", f"Write a number and a unit, as in {right}")
    return math.floor(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def _wrong(option: str, value: object, what: str, next_step: str) -> OptionError:
    return OptionError.explain(which=f"{option}={value!r}", what=what, next_step=next_step, option=option)


def _wrong_type(option: str, value: object, next_step: str) -> OptionTypeError:
    what = f"is of the type {type(value).__name__}"
    return OptionTypeError.explain(which=f"{option}={value!r}", what=what, next_step=next_step, option=option)


def parse_resources(
    *, num_cpus: object = None, num_gpus: object = None, memory: object = None, resources: object = None
) -> dict[str, int]:
    """Check the four options that ask for resources and return what they ask for, in units, without zeros.

    Raises OptionError for whatever can be wrong; the message names the option and what would be right.
    """
    demand = {}
    if num_cpus is not None:
        demand[CPU] = parse_amount("num_cpus", num_cpus)
    if num_gpus is not None:
        demand[GPU] = parse_amount("num_gpus", num_gpus)
        check_device_amount("num_gpus", demand[GPU])
    if memory is not None:
        demand[MEMORY] = parse_bytes("memory", memory) * UNIT
    if resources is not None:
        demand.update(_parse_custom(resources))
    return {name: units for name, units in demand.items() if units}


def _parse_custom(resources: object) -> dict[str, int]:
    if not isinstance(resources, Mapping):
        raise _wrong_type("resources", resources, "A dict of amounts is right, as in resources={'disk': 1}")
    demand = {}
    for name, value in resources.items():
        option = f"resources[{name!r}]"
        if not isinstance(name, str) or not name:
            raise _wrong(option, value, "has no usable name", "A name is text that is not empty")
        check_encodable(option, name)
        if own := _OPTION_OF.get(name.lower()):
            raise _wrong(option, value, "has an option of its own", f"Write {own}={value!r}")
        demand[name] = parse_amount(option, value)
    return demand


def check_device_amount(option: str, units: int) -> None:
    """Raise OptionError for devices that are neither a share of one nor a whole number of them."""
    if units > UNIT and units % UNIT:
        whole = units // UNIT
        raise OptionError.explain(
            which=f"{option}={format_number(units)}",
            what="asks for a part of more than one device",
            next_step=f"Ask for a share of one ({option}=0.5) or for whole ones ({option}={whole + 1})",
            option=option,
        )


def to_number(units: int) -> float | int:
    """Return units as the number a user would write."""
    return units // UNIT if units % UNIT == 0 else units / UNIT


def format_number(units: int) -> str:
    """Return units as text: `2`, `0.5`."""
    return f"{to_number(units):g}" if units % UNIT else str(units // UNIT)


def format_bytes(size: int) -> str:
    """Return a size as text with one decimal at most: `512 B`, `1.5 GiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.1f}".removesuffix(".0") + f" {unit}"
        amount /= 1024
    return f"{amount:.1f}".removesuffix(".0") + " TiB"


def format_amount(name: str, units: int) -> str:
    """Return one amount with its name: `2 CPU`, `4 GiB memory`; of a type the name: `an accelerator of the type A100`."""
    if name.startswith(ACCELERATOR_TYPE):
        return f"an accelerator of the type {name.removeprefix(ACCELERATOR_TYPE)}"
    return f"{format_bytes(units // UNIT)} {name}" if name == MEMORY else f"{format_number(units)} {name}"


def format_resources(amounts: Mapping[str, int]) -> str:
    """Return amounts as text for errors and the state API: `2 CPU, 0.5 GPU, 4 GiB memory`, or `nothing`."""
    return ", ".join(format_amount(name, units) for name, units in amounts.items() if units) or "nothing"


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known resource that `name` was probably meant to be, or an empty string."""
    import difflib  # Slow to import, and seldom needed.

    if name in (CPU, GPU, TPU, MEMORY):
        return ""  # It was meant, and is not there.
    by_folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_folded, n=1)
    return by_folded[near[0]] if near else ""


class ResourceSet:
    """Amounts by name. An absent name has the amount 0; a negative amount is a debt that its owner allows."""

    __slots__ = ("amounts",)

    def __init__(self, amounts: Mapping[str, int] | None = None) -> None:
        self.amounts: dict[str, int] = dict(amounts or {})

    def __repr__(self) -> str:
        return f"ResourceSet({format_resources(self.amounts)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResourceSet):
            return NotImplemented
        names = self.amounts.keys() | other.amounts.keys()
        return all(self.amounts.get(name, 0) == other.amounts.get(name, 0) for name in names)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def names(self) -> list[str]:
        """The names with an amount, in the order they came."""
        return [name for name, units in self.amounts.items() if units]

    def get(self, name: str) -> int:
        """The amount of one resource, in units."""
        return self.amounts.get(name, 0)

    def fits(self, demand: Mapping[str, int]) -> bool:
        """True when every amount of `demand` is here."""
        amounts = self.amounts
        for name, units in demand.items():  # noqa: SIM110 - a generator costs twice as much here
            if units > amounts.get(name, 0):
                return False
        return True

    def missing(self, demand: Mapping[str, int]) -> dict[str, int]:
        """What of `demand` is not here: amounts by name, empty when it fits."""
        return {name: units - self.get(name) for name, units in demand.items() if units > self.get(name)}

    def add(self, amounts: Mapping[str, int]) -> None:
        """Put amounts in."""
        mine = self.amounts
        for name, units in amounts.items():
            mine[name] = mine.get(name, 0) + units

    def subtract(self, amounts: Mapping[str, int]) -> None:
        """Take amounts out; what goes below 0 is a debt."""
        mine = self.amounts
        for name, units in amounts.items():
            mine[name] = mine.get(name, 0) - units

    def copy(self) -> ResourceSet:
        """A set of its own with the same amounts."""
        return ResourceSet(self.amounts)


class DeviceBook:
    """Which ids of one kind of device (GPU) are free, and how much of each.

    `each` is how much of every device is in the book: all of it on a node, a share in a bundle that has one.

    DB-1: the free part of every device is between 0 and `each`; `give` returns exactly what `take` handed out.
    DB-2: a whole device is given to one holder; a share never lies on more than one device.
    DB-3: who asks for an accelerator type that some of the devices have gets these and no others.
    """

    __slots__ = ("_each", "_free", "_types")

    def __init__(self, ids: Iterable[int], types: Mapping[int, str] | None = None, *, each: int = UNIT) -> None:
        self._each = each
        self._free = dict.fromkeys(sorted(ids), each)
        self._types = dict(types or {})

    def capacity(self, type_: str = "") -> int:
        """All devices, or those of a type, in units."""
        return sum(not type_ or self._types.get(device) == type_ for device in self._free) * self._each

    def wanted_type(self, demand: Mapping[str, int]) -> str:
        """The accelerator type that `demand` asks for, if it is one of these devices'; empty: any device will do."""
        for type_ in self._types.values():
            if f"{ACCELERATOR_TYPE}{type_}" in demand:
                return type_
        return ""

    def _candidates(self, type_: str) -> list[tuple[int, int]]:
        """The devices that may be given to who asks for this type, and what of each is free (DB-3)."""
        return [(device, left) for device, left in self._free.items() if not type_ or self._types.get(device) == type_]

    def free(self) -> dict[int, int]:
        """The free units of each id."""
        return dict(self._free)

    def fits(self, units: int, type_: str = "") -> bool:
        """True when `take` would succeed."""
        candidates = self._candidates(type_)
        if units >= UNIT:
            return units % UNIT == 0 and sum(left == UNIT for _, left in candidates) >= units // UNIT
        return any(left >= units for _, left in candidates)

    def take(self, units: int, type_: str = "") -> list[int]:
        """Take `units`, return the ids: the lowest whole ones, or for a share the fullest device with room.

        A share goes where others are, so that whole devices stay whole. Call only when `fits`.
        """
        assert units > 0, "DB-1: a demand for devices is positive"
        assert self.fits(units, type_), f"DB-1: {format_number(units)} devices asked, free are {self._free}"
        if units >= UNIT:
            ids = [device for device, left in self._candidates(type_) if left == UNIT][: units // UNIT]
            for device in ids:
                self._free[device] = 0
            return ids
        shared = min((left, device) for device, left in self._candidates(type_) if left >= units)[1]
        self._free[shared] -= units
        return [shared]

    def give(self, ids: Iterable[int], units: int) -> None:
        """Give back what `take(units)` returned."""
        share = min(units, UNIT)
        for device in ids:
            self._free[device] += share
            assert self._free[device] <= self._each, f"DB-1: device {device} was given back twice"
