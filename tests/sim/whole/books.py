"""The books of a run are in order: after each step that changes one of them, or when somebody asks.

WH-5  every book agrees with itself, and no node has lent more than it has
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from actorflow._core.base.resources import ResourceSet
from actorflow._core.policy.bundles import Bundles
from actorflow._core.policy.durable_objects import DurableObjects
from actorflow._core.policy.leases import LeaseBook
from actorflow._core.policy.object_store import ExtentBook
from actorflow._core.policy.placement_groups import PlacementGroups
from actorflow._core.policy.pulls import PullBook
from actorflow._core.policy.supervision import SupervisionBook
from actorflow._core.policy.worker_pool import WorkerPool
from tests.sim.whole.watching import Tell, watching

if TYPE_CHECKING:
    from actorflow.testing.cluster import SimCluster

BOOKS: tuple[type, ...] = (LeaseBook, WorkerPool, ExtentBook, PullBook, PlacementGroups, SupervisionBook, Bundles, DurableObjects)


def check_books(cluster: SimCluster) -> None:
    """Raises AssertionError, which names the invariant."""
    for sim in cluster.nodes:
        node = sim.node
        if not sim.host.alive or node is None:
            continue
        groups = node._context.groups
        taken = groups.bundles.check() if groups is not None else ResourceSet()
        node._book.check(taken.amounts)
        for book in groups.books() if groups is not None else ():
            book.check()
        free = node._book.free()
        assert all(units >= 0 for name, units in free.amounts.items() if name != "CPU"), f"WH-5: {sim.name} has lent too much: {free}"
        node._pool.check()
        node._store.book.check()
        if node._transfers is not None:
            node._transfers.pulling.book.check()
    head: Any = cluster.head
    if cluster.node_host.alive and head is not None and head._opened is not None:
        head._opened.table.check()
    if cluster.node_host.alive and head is not None and head._durable is not None and not head._durable.returning:
        head._durable.table.check()


class Watchman:
    """Looks at all books after each step in which one of them was changed."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._due = False
        self.looks = 0

    def watch(self) -> Any:
        """A block within which it does."""
        return watching(self._all())

    def _all(self) -> Iterator[tuple[type, str, Tell]]:
        for book in BOOKS:
            for name, value in vars(book).items():
                if callable(value) and not name.startswith("_") and name != "check" and not isinstance(value, staticmethod | classmethod):
                    yield book, name, self._changed

    def _changed(self, self_: Any, args: tuple[Any, ...], result: Any) -> None:
        if not self._due:
            self._due = True
            world = self._cluster.world
            world.at_step(world.steps, self._look)

    def _look(self) -> None:
        self.looks += 1
        check_books(self._cluster)
        self._due = False  # What the look itself has asked the books is no change.
