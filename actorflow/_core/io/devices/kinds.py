"""What a kind of accelerator is: how its devices are found, and the variables that show a worker its own and hide the others.

A kind is a record of functions, so that a new one is a new file and a line in `registry`. None of them imports what takes long before a
cheap look at the file system says that there is something to find. None is imported before `signs` has had that look.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

log = logging.getLogger(__name__)


class Device(NamedTuple):
    """One accelerator of this machine."""

    number: int
    """Its id in leases, and in the state API."""
    shown: str = ""
    """What names it in the variables of a worker; empty: its number."""
    type: str = ""
    """Its accelerator type, as in `accelerator_type="A100"`; empty: nobody could tell."""
    memory_bytes: int = 0
    """0: nobody could tell."""
    uuid: str = ""

    @property
    def text(self) -> str:
        """What names it in the variables of a worker."""
        return self.shown or str(self.number)


class Machine(NamedTuple):
    """Where to look: the file system, the variables of this process, and the modules that it can import."""

    root: str = "/"
    environ: Mapping[str, str] = os.environ
    load: Callable[[str], Any] = importlib.import_module

    def path(self, path: str) -> str:
        """A path of the machine, such as `/dev/kfd`, as this process can open it."""
        return os.path.join(self.root, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        """True when there is such a file or directory."""
        return os.path.exists(self.path(path))

    def names(self, path: str) -> list[str]:
        """The names in a directory; none when there is no such directory, or it may not be read."""
        try:
            return os.listdir(self.path(path))
        except OSError:
            return []

    def numbers(self, path: str, prefix: str = "") -> list[int]:
        """The numbers n for which the directory has a `{prefix}{n}`, in order."""
        rests = (name.removeprefix(prefix) for name in self.names(path) if name.startswith(prefix))
        return sorted(int(rest) for rest in rests if rest.isascii() and rest.isdecimal())

    def read(self, path: str) -> str:
        """The text of a small file, stripped; empty when it cannot be read: a container may show a file and forbid it."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""


Show = Callable[[Sequence[str], int], dict[str, str]]
"""From the texts of a worker's devices, and how many the node has, to its variables."""


class Kind(NamedTuple):
    """One kind of accelerator."""

    name: str
    resource: str
    """As which its devices are asked for: `GPU`."""
    variable: str
    """Which says to a program which devices it may use."""
    find: Callable[[Machine], list[Device]]
    """All devices of the machine. May raise: the registry makes a warning of it."""
    restrict: Callable[[Machine, list[Device]], list[Device]]
    """What of them this process may use, by the variables that it was started with."""
    show: Show
    owns: Callable[[str], bool]
    """True for an accelerator type of this kind: for simulated devices."""
    advice: str
    """What to do when the driver does not answer."""


def pick(variable: str, text: str, devices: Sequence[Device], find: Callable[[str], Device | None]) -> list[Device]:
    """The devices that the list `text` names, each once, up to the first entry that names none: there the runtimes stop too."""
    picked: dict[int, Device] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        device = find(entry)
        if device is None:
            if entry not in NOTHING:
                log.warning(
                    "%s=%r: %r names no device of this node, which has %d (%s): from it on the list is not used. "
                    "Set it to numbers or ids that are there",
                    variable, text, entry, len(devices), ", ".join(device.uuid or device.text for device in devices) or "none",
                )  # fmt: skip
            break
        picked.setdefault(device.number, device)
    return list(picked.values())


NOTHING = frozenset({"-1", "none", "void", "NoDevFiles"})
"""What people and batch systems write for no device at all."""


def by_number(devices: Iterable[Device]) -> Callable[[str], Device | None]:
    """Finds a device by its number in text."""
    known = {str(device.number): device for device in devices}
    return known.get


def by_uuid(devices: Iterable[Device], entry: str) -> Device | None:
    """The one device whose uuid begins so."""
    found = [device for device in devices if device.uuid.lower().startswith(entry.lower())]
    return found[0] if len(found) == 1 else None
