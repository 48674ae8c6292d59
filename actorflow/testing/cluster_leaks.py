"""What a simulated cluster still holds when nothing should be left: CK-7 in the words of its own tables.

These look into the private state of the roles on purpose: a leak is what no message tells of. They also
call each book's own `check()`, so that a broken invariant is found at the latest here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actorflow._core.policy.worker_records import WorkerState
from actorflow._core.worker.core import Core
from actorflow.testing.checkers import Violation

if TYPE_CHECKING:
    from actorflow._core.node.node import Node
    from actorflow._core.worker.host import Host as CallHost
    from actorflow.testing.cluster import SimCluster
    from actorflow.testing.host import Host

BUSY = (WorkerState.LEASED, WorkerState.ACTOR, WorkerState.HOST)


def cluster_leaks(cluster: SimCluster) -> list[Violation]:
    """All that the calls, objects and actors of the living processes have left behind."""
    found: list[str] = []
    for host, core in cluster.cores.items():
        if host.alive and core.closed is None:
            found += [f"{host.name}: {text}" for text in _core_leaks(core)]
            call_host = cluster.call_hosts.get(host)
            if call_host is not None:
                found += [f"{host.name}: {text}" for text in _host_leaks(call_host)]
                found += [f"{host.name}: blocked code" for thread in host.threads if thread.blocked]
    if cluster.node_host.alive:
        found += _head_leaks(cluster)
    for node in cluster.nodes:
        if node.host.alive and node.node is not None:
            where = "" if node is cluster.nodes[0] else f"{node.name}: "
            found += [f"{where}{text}" for text in _node_leaks(cluster, node.node)]
            found += [f"{where}disk: a file of extent {number}" for number in node.spill.files]
            found += [f"{where}disk: {len(node.spill.open_files)} files are open"] if node.spill.open_files else []
            found += [f"{where}arena: a view of [{start}, {stop})" for start, stop in node.arena.live_views()]
    return [Violation("CK-7", f"left: {text}") for text in found]


def machine_leaks(cluster: SimCluster) -> list[Violation]:
    """What is left of a cluster that has ended: processes, sockets."""
    left = [f"the process {host.name}" for host in _processes(cluster) if host.alive]
    if not left:
        left = [f"the address {address}" for address in cluster.world.fabric.addresses() if _is_stray(cluster, address)]
    return [Violation("CK-7", f"left: {text}") for text in left]


def _processes(cluster: SimCluster) -> list[Host]:
    return [*(node.host for node in cluster.nodes), *(driver.host for driver in cluster.drivers), *cluster.call_hosts]


def _is_stray(cluster: SimCluster, address: str) -> bool:
    """True for a socket that nobody removes: outside, the node process removes the whole session directory, if it
    ends in order; the sockets of processes that were killed go with it.
    """
    return f"/{cluster.name}/" in address and cluster.node_host.exit_code != 0 and cluster.node_host.signal is None


def _core_leaks(core: Core) -> list[str]:
    references, found = core.references, []
    for owned in references.owned.entries.values():
        lifetime = core.objects.lifetimes.get(owned.index)
        what = f"owned object {owned.index}" if lifetime is None else f"the lifetime of actor {lifetime}"
        held = f"{owned.local} handles, {owned.pins} pins, borrowers {owned.borrowers or {}}"
        call = f", made by {owned.call.target.name} ({owned.call.state.value})" if owned.call is not None else ""
        found.append(f"{what}: {held}{call}")
    for borrowed in references.borrowed.entries.values():
        held = f"{borrowed.local} handles, {borrowed.pins} pins, owed {borrowed.owed}"
        found.append(f"borrowed object {borrowed.index} of {borrowed.owner}: {held}")
    tables: dict[str, Iterable[object]] = {
        "acknowledgement that is waited for": references._acks,
        "lease": core.tasks._leases,
        "lease request": core.tasks._requests,
        "answer of the object store that is waited for": core.store._waiting,
        "object in the arena": core.store._complete,
        "object that may be on disk": core.store._may_be_away,
        "object that other nodes have": core.store._copies.known() if core.store._copies is not None else (),
        "answer of the head that is waited for": core.directory._answers,
    }
    found += [f"{name} {key}" for name, table in tables.items() for key in table]
    found += core.store.left_over()
    for client in core.actors.every():
        found += [f"call {seq} under way to {client!r}" for seq in client.inflight]
        found += [f"call {call.entry.index} queued for {client!r}" for call in client.queue]
    found += [f"task {call.entry.index} ({call.target.name}) {call.state.value}" for call in core.tasks.pending()]
    return found


def _host_leaks(host: CallHost) -> list[str]:
    found = [f"call {seq} of {caller} that runs or waits" for caller, seq in host.calls]
    found += [f"hold {number}: {len(entries)} references for {peer!r}" for number, (peer, entries) in host.holds.items()]
    gauges = {"running": host.lending.running, "waiting": host.lending.waiting, "told blocked": int(host.lending.told)}
    found += [f"gauge {name} at {value}" for name, value in gauges.items() if value]
    if host.tasks.running() or host.tasks.waiting():
        found.append(f"task mailbox: {host.tasks.running()} running, {host.tasks.waiting()} waiting")
    found += [f"actor {actor.label}" for actor in host.actors.values()]
    return found


def _node_leaks(cluster: SimCluster, node: Node) -> list[str]:
    groups = node._context.groups
    node._book.check(groups.bundles.check().amounts if groups is not None else None)
    node._pool.check()
    node._store.book.check()
    found = [f"node: {ticket!r} for {ticket.name}" for ticket in node._book.tickets()]
    if not found and node._book.free() != node._book.total:
        found.append(f"node: free resources {node._book.free()} of {node._book.total}")
    if groups is not None:
        found += [f"node: {r.state.value} bundles of group {r.group_id}" for r in groups.bundles.reservations()]
        found += [f"node: {ticket!r} in group {book.group_id}" for book in groups.books() for ticket in book.tickets()]
    workers = node._pool.workers.values()
    found += [f"node: worker {worker.worker_id} is {worker.state.value}" for worker in workers if worker.state in BUSY]
    found += [f"node: claim for a worker {claim.purpose.value}" for many in node._pool._claims.values() for claim in many.values()]
    found += [f"node: actor {actor.name} ({actor.actor_id}) {actor.stage.value}" for actor in node._actors._actors.values()]
    book = node._store.book
    # A slab is room that a living process has for what it will write, and no object.
    alive = {core.identity.process_id for host, core in cluster.cores.items() if host.alive}
    objects = [e for e in book.extents() if e.carved is None or e.owner not in alive]
    found += [f"node: extent {e.number} of {e.owner}: {e.size} bytes, {e.pins} pins" for e in objects]
    if book.used_bytes() and not book.extents():
        found.append(f"node: {book.used_bytes()} bytes of the arena in use by no extent")
    found += [f"node: {book.waiting} allocations that wait"] if book.waiting else []
    if node._transfers is not None:
        found += [f"node: {text}" for text in node._transfers.left_over()]
    if node._parts is not None:
        found += [f"node: {text}" for text in node._parts.left_over()]
    if node._kept is not None:
        found += [f"node: object {index} of the cluster's, in extent {extent}" for index, extent in node._kept._extents.items()]
        found += [f"node: object {index} of the cluster's, on its way" for index in node._kept._fetched]
    for peer in node._clients.values():
        found += [f"node: lease {number} of {peer!r}" for number in peer.state.leases]  # type: ignore[attr-defined]
    return found


def _head_leaks(cluster: SimCluster) -> list[str]:
    if cluster.head is None:
        return []
    actors, groups = cluster.head._actors, cluster.head._opened
    found = []
    durable = cluster.head._durable
    if durable is not None:
        durable.table.check()
        found += [f"head: object {each.index} of the cluster's" for each in durable.table.all()]
    if groups is not None:
        groups.table.check()
        found += [f"head: {group!r}" for group in groups.table.living()]
        found += [f"head: group {group_id} is asked back" for returning in groups.table._returning.values() for group_id in returning]
        found += [f"head: an actor in group {group_id}" for group_id in {**groups._inside, **groups._waiting}]
    found += [f"head: actor {actor.spec.class_name} ({actor.spec.actor_id})" for actor in actors.table.living()]
    if actors.checkpoints.total_bytes():
        found.append(f"head: checkpoints of {actors.checkpoints.total_bytes()} bytes")
    return found
