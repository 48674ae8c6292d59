"""The placement groups that are not removed, and who they belong to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from actorflow._core.base.ids import ActorId, GroupId, ProcessId
from actorflow._core.policy.names import NameBook
from actorflow._core.policy.placement_record import Group, RemovedGroup

Index = dict[str, dict[GroupId, None]]
"""Which groups belong to somebody. Dicts, not sets: their order is the same in every run."""


class GroupRoster:
    """The living groups by id, name, job, creator and watcher; and the removed. Written by PlacementGroups only.

    GR-1: a group is in every index that its record says it belongs to, and in no other.
    GR-2: at most `removed_max` removed groups are remembered; the oldest are forgotten first.
    """

    __slots__ = ("_by_creator", "_by_job", "_groups", "_names", "_removed", "_removed_max", "_watched", "get")

    def __init__(self, removed_max: int) -> None:
        self._groups: dict[GroupId, Group] = {}
        self._by_creator: Index = {}
        self._by_job: Index = {}
        self._watched: Index = {}
        self._names = NameBook("placement group")
        self._removed: OrderedDict[GroupId, RemovedGroup] = OrderedDict()
        self._removed_max = removed_max
        self.get = self._groups.get

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        """Oldest first."""
        return iter(self._groups.values())

    def named(self, namespace: str, name: str) -> Group | None:
        """The group that has this name; none has the empty one."""
        group_id = self._names.find(namespace, name) if name else None
        return self._groups[group_id] if group_id is not None else None

    def near(self, namespace: str, name: str) -> list[str]:
        """Names that look like this one, or namespaces that have it: for errors."""
        return self._names.near(namespace, name) or [f"{name} in {space}" for space in self._names.elsewhere(namespace, name)]

    def created_by(self, creator: ActorId) -> list[Group]:
        """The groups that this actor created."""
        return [self._groups[group_id] for group_id in self._by_creator.get(creator, ())]

    def of_job(self, job_id: str) -> list[Group]:
        """The groups of a job."""
        return [self._groups[group_id] for group_id in self._by_job.get(job_id, ())]

    def removed(self, group_id: GroupId) -> RemovedGroup | None:
        """What is remembered of a group that is no more."""
        return self._removed.get(group_id)

    def all_removed(self) -> Iterator[RemovedGroup]:
        """The removed that are remembered, newest first."""
        return reversed(self._removed.values())

    # -- changes

    def enter(self, group: Group) -> None:
        """A new group."""
        spec = group.spec
        self._groups[spec.group_id] = group
        self._by_job.setdefault(spec.job_id, {})[spec.group_id] = None
        if spec.creator:
            self._by_creator.setdefault(spec.creator, {})[spec.group_id] = None
        if spec.name:
            self._names.take(spec.namespace, spec.name, spec.group_id)

    def leave(self, group: Group) -> None:
        """It is removed; its name is free."""
        spec = group.spec
        del self._groups[spec.group_id]
        _drop(self._by_job, spec.job_id, spec.group_id)
        if spec.creator:
            _drop(self._by_creator, spec.creator, spec.group_id)
        for watcher in group.watchers:
            _drop(self._watched, watcher, spec.group_id)
        if spec.name:
            self._names.free(spec.namespace, spec.name, spec.group_id)

    def remember(self, group_id: GroupId, removed: RemovedGroup) -> None:
        """Keep in mind what became of it."""
        self._removed[group_id] = removed
        while len(self._removed) > self._removed_max:
            self._removed.popitem(last=False)

    def add_watcher(self, group: Group, watcher: ProcessId) -> None:
        """`watcher` is told of every change from now on."""
        if watcher not in group.watchers:
            group.watchers = (*group.watchers, watcher)
            self._watched.setdefault(watcher, {})[group.spec.group_id] = None

    def drop_watcher(self, watcher: ProcessId) -> None:
        """A process is gone and need not be told anything."""
        for group_id in self._watched.pop(watcher, ()):
            group = self._groups[group_id]
            group.watchers = tuple(known for known in group.watchers if known != watcher)

    def check(self) -> None:
        """Assert GR-1; for tests."""
        for index, of in (
            (self._by_job, lambda group: [group.spec.job_id]),
            (self._by_creator, lambda group: [group.spec.creator] if group.spec.creator else []),
            (self._watched, lambda group: group.watchers),
        ):
            expected: Index = {}
            for group in self:
                for key in of(group):
                    expected.setdefault(key, {})[group.spec.group_id] = None
            assert index == expected, "GR-1: an index and the records differ"
        for group in self:
            if group.spec.name:
                assert self.named(group.spec.namespace, group.spec.name) is group, "GR-1: it has not its name"


def _drop(index: Index, key: str, group_id: GroupId) -> None:
    known = index[key]
    del known[group_id]
    if not known:
        del index[key]
