"""A bound on the memory of some processes: a control group of their own, as a container has one. Needs root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.leaks import until

ROOT = Path("/sys/fs/cgroup")


class ControlGroup(NamedTuple):
    """`path`: whoever writes its number into `cgroup.procs` there is bound."""

    path: Path
    second_version: bool

    def kills(self) -> int:
        """How many of its processes the system has ended for want of memory."""
        name = "memory.events" if self.second_version else "memory.oom_control"
        fields = dict(line.split() for line in (self.path / name).read_text().splitlines())
        return int(fields["oom_kill"])

    def processes(self) -> list[int]:
        """Who is in it."""
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]


def _parent() -> tuple[Path, bool] | None:
    """The group of this process that may bound memory, and whether it is of the second version."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            inside = ROOT / "memory" / path.lstrip("/")
            return (inside if inside.exists() else ROOT / "memory"), False
    for place in (ROOT, ROOT / "unified"):
        control = place / "cgroup.subtree_control"
        if control.exists() and "memory" in control.read_text().split():
            return place, True
    return None


@cache
def problem() -> str:
    """Why there can be no such group here; empty when there can."""
    if os.geteuid():
        return "a control group needs root"
    found = _parent()
    if found is None:
        return "no control group of this machine bounds memory"
    return "" if os.access(found[0], os.W_OK) and os.statvfs(found[0]).f_flag & os.ST_RDONLY == 0 else f"{found[0]} is read-only"


needs_group = pytest.mark.skipif(bool(problem()), reason=problem() or "there can be control groups")


@contextlib.contextmanager
def control_group(memory_bytes: int) -> Iterator[ControlGroup]:
    """A group whose processes have so much memory together, and no swap. It is gone afterwards."""
    found = _parent()
    assert found is not None
    parent, second = found
    group = ControlGroup(parent / f"actorflow-test-{os.getpid()}", second)
    group.path.mkdir()
    try:
        (group.path / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(memory_bytes))
        swap = group.path / ("memory.swap.max" if second else "memory.memsw.limit_in_bytes")
        if swap.exists():
            swap.write_text("0" if second else str(memory_bytes))
        yield group
    finally:
        assert until(lambda: not group.processes()), group.processes()
        assert until(lambda: _removed(group.path)), f"{group.path} cannot be removed"


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()
