"""Creating actors: the specification goes to the head, the handle is there at once."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

from actorflow._core.base.targets import MethodTarget
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.worker.actors import ActorClient
from actorflow._core.worker.calls import Call, pack, unsettled
from actorflow._core.worker.context import CAPTURED, declared_values
from actorflow._core.worker.large_arguments import Large

if TYPE_CHECKING:
    from actorflow._core.base.targets import ActorTarget
    from actorflow._core.worker.core import Core

_CONSTRUCTOR = MethodTarget("__init__", "sync", None)


def create_actor(core: Core, target: ActorTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> ActorClient:
    """See Runtime.create_actor. Raises SerializationError for a class or arguments that cannot travel."""
    core.check_open()
    give_class_id(target)
    call = Call(_CONSTRUCTOR, options, 0)  # only its arguments and its declared context are used
    call.values = declared_values()
    if options.capture_child_tasks or (call.values is not None and CAPTURED in call.values):
        from actorflow._core.worker.captured import capture

        capture(call, None)
        options = call.options
    large = pack(call, args, kwargs)
    placed = core.large_arguments.place(large, target.name) if large is not None else None
    with core.lock:
        core.actors.versions.made(target.cls, target.class_id)
        client = core.actors.client(core.new_id(), target.name, watch=False)
        client.class_blob = target.interface
        client.max_task_retries = options.max_task_retries
        client.max_pending_calls = options.max_pending_calls
        if options.lifetime is None:
            lifetime = core.references.owned.new()
            lifetime.outcome = m.Inline(b"")  # it has no value, and is freed with its last handle
            core.objects.lifetimes[lifetime.index] = client.actor_id
            if options.process == "dedicated":
                core.objects.lives[client.actor_id] = lifetime.index
            client.lifetime = core.references.handle(lifetime)
        else:
            core.actors.unborn[client.actor_id] = f"{options.name!r}, {client!r}," if options.name else repr(client)
        for pinned in call.pins:
            pinned.pins += 1
        creation = Creation(core, client, target, options, call)
        if call.pins or placed is not None:
            # Not a method of the creation's: whoever waits for the end of the actor must not keep it alive by a handle.
            core.actors.at_death(client, partial(_let_go, core, call, creation.stored))
        if placed is not None:
            creation.move(placed)
        for entry in unsettled(call.deps or ()):
            call.waiting_for += 1
            core.caller.when_settled(entry, creation.ready)
        if not call.waiting_for:
            creation.send()
    return client


def spec_of(core: Core, actor_id: str, target: ActorTarget, options: Any, call: Call) -> m.ActorSpec:
    """What the head is to know of an actor: all arguments of its constructor are settled. Under the lock."""
    me = core.identity
    return m.ActorSpec(
        actor_id=actor_id,
        job_id=me.job_id,
        owner=me.process_id,
        owner_address=me.address,
        class_id=target.class_id,
        class_name=target.name,
        class_pickle=target.pickle,
        methods=target.interface,
        args=call.args,
        buffers=call.buffers,
        deps=[entry.outcome for entry in call.deps] if call.deps else None,  # type: ignore[misc]  # all are settled
        refs=core.references.groups(call.refs) if call.refs else None,
        resources=options.resources,
        priority=options.priority,
        env=options.env,
        placement=options.placement,
        name=options.name or "",
        namespace=options.namespace or me.namespace,
        detached=options.lifetime == "detached",
        shared=options.process == "shared",
        max_restarts=options.max_restarts,
        max_concurrency=options.max_concurrency or 0,
        groups=dict(target.groups),
        checkpoint_every=options.checkpoint_every,
        values=call.values,
    )


def give_class_id(target: ActorTarget) -> None:
    """Pickle its class, unless it has been. Raises SerializationError."""
    if not target.class_id:
        target.pickle = values.dumps_code(target.cls, f"class {target.name}")
        target.class_id = hashlib.sha256(target.pickle).hexdigest()[:24]


class Creation:
    """One creation on its way: it may have to wait for its arguments."""

    def __init__(self, core: Core, client: ActorClient, target: ActorTarget, options: Any, call: Call) -> None:
        self.core = core
        self.client = client
        self.target = target
        self.options = options
        self.call = call
        self.stored: list[m.Stored] = []
        """Where its arguments are, when they were large."""

    def move(self, large: Large) -> None:
        """Large arguments go through shared memory. Under the lock."""
        self.call.waiting_for += 1

        def moved(result: m.Stored | Exception) -> None:
            if isinstance(result, Exception):
                self.core.actors.fail(self.client, result)
                return
            if self.client.state == "dead":
                self.core.store.free(result)
                return
            self.stored.append(result)
            self.core.store.owns(result)
            if later:
                self.ready()
            else:
                self.call.waiting_for -= 1

        later = False
        self.core.large_arguments.move(large, moved)
        later = True

    def ready(self) -> None:
        """One more argument is there. Under the lock."""
        self.call.waiting_for -= 1
        if not self.call.waiting_for and self.client.state != "dead":
            self.send()

    def send(self) -> None:
        """Tell the head. The arguments stay pinned as long as the actor may be restarted: until it is dead."""
        core, call, options, client = self.core, self.call, self.options, self.client
        lost = unsettled(call.deps or ())
        call.waiting_for += len(lost)
        for entry in lost:
            core.caller.when_settled(entry, self.ready)
        if lost:
            return
        for entry in call.deps or ():
            if type(entry.outcome) is m.Failed:
                core.actors.fail(client, core.error_of(entry.outcome))
                return
        spec = spec_of(core, client.actor_id, self.target, options, call)
        spec.stored = self.stored[0] if self.stored else None
        core.head_line.push("create", spec.actor_id, m.CreateActor(spec, options.get_if_exists))


def _let_go(core: Core, call: Call, stored: list[m.Stored]) -> None:
    """The actor is dead: its arguments are not needed for a restart any more. Under the lock."""
    pins, call.pins = call.pins, ()
    core.references.unpin_all(pins)
    while stored:
        core.store.free(stored.pop())
