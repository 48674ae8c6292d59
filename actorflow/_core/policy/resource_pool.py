"""Resources that are taken and given back together: amounts, and the ids of devices. Pure.

A node has one pool, and every bundle on it has one of its own, whose resources were taken out of the node's.

RP-1: what is taken and what is free make the total; nothing goes below 0 but CPU that is owed (SEMANTICS 24).
RP-2: the ids of a kind of device and its amount say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from actorflow._core.base.resources import UNIT, DeviceBook, ResourceSet, format_number, format_resources

Amounts = Mapping[str, int]
Devices = dict[str, list[int]]
"""Which ids of each kind of device."""


class ResourcePool:
    """The resources of a node, or of a bundle."""

    __slots__ = ("devices", "free", "lent", "total")

    def __init__(
        self,
        total: Amounts,
        devices: Mapping[str, Iterable[int]] | None = None,
        types: Mapping[str, Mapping[int, str]] | None = None,
    ) -> None:
        """`devices`: the ids of each kind; a share of a device is one id whose amount is less than UNIT. `types`: of each id, if known."""
        self.total = ResourceSet(total)
        self.free = ResourceSet(total)
        self.lent = 0
        """How much of the free CPU blocked workers have lent: they may take it back at any moment."""
        self.devices: dict[str, DeviceBook] = {}
        for name, ids in (devices or {}).items():
            book = self.devices[name] = DeviceBook(ids, (types or {}).get(name), each=min(self.total.get(name), UNIT))
            assert book.capacity() == self.total.get(name), f"RP-2: {name} has an id for each device"

    def fits(self, demand: Amounts) -> bool:
        """True when `take(demand)` would succeed."""
        if not self.free.fits(demand):
            return False
        for name, book in self.devices.items():
            units = demand.get(name, 0)
            if units and not book.fits(units, book.wanted_type(demand)):
                return False
        return True

    def take(self, demand: Amounts) -> Devices:
        """Take amounts, return the ids of the devices among them. Call only when it `fits`."""
        self.free.subtract(demand)
        books = [(name, book) for name, book in self.devices.items() if demand.get(name)]
        return {name: book.take(demand[name], book.wanted_type(demand)) for name, book in books}

    def give(self, demand: Amounts, devices: Devices) -> None:
        """Give back what `take(demand)` returned."""
        self.free.add(demand)
        for name, ids in devices.items():
            self.devices[name].give(ids, demand[name])

    def set_aside(self, demands: Iterable[Amounts], aside: dict[str, int]) -> None:
        """Add to `aside` what others must leave free so that all `demands` are served some time.

        Where a device is missing all of its kind is set aside: shares of it come and go.
        """
        whole: dict[str, int] = {}
        short = set()
        for demand in demands:
            for name, units in demand.items():
                aside[name] = aside.get(name, 0) + units
                book = self.devices.get(name)
                if book is not None and units >= UNIT:
                    whole[name] = units = whole.get(name, 0) + units
                if book is not None and units and not book.fits(units, book.wanted_type(demand)):
                    short.add(name)
        for name in short:
            aside[name] = max(aside[name], self.total.get(name))

    def why_not(self, demand: Amounts) -> str:
        """What of `demand` is not free, as text: `4 CPU are missing`, or which devices have no room."""
        if not self.free.fits(demand):
            return f"{format_resources(self.free.missing(demand))} more than there is free"
        for name, book in self.devices.items():
            units = demand.get(name, 0)
            if units and not book.fits(units, book.wanted_type(demand)):
                parts = ", ".join(f"{format_number(left)} of {name} {device}" for device, left in book.free().items())
                return f"{format_number(units)} {name}, and no device has room for that: free are {parts}"
        return ""

    def check(self, taken: ResourceSet) -> None:
        """Assert the invariants, given what is taken; for tests."""
        used = taken.copy()
        used.add(self.free.amounts)
        assert used == self.total, f"RP-1: taken and free make {used}, the total is {self.total}"
        for name, book in self.devices.items():
            assert sum(book.free().values()) == self.free.get(name), f"RP-2: the ids of {name} and its amount"
