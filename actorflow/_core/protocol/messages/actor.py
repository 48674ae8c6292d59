"""Actors: their life is decided by the head, done by a node and a worker."""

from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.object import Failed, Outcome, RefGroup, Stored


class ActorSpec(Message):
    """Everything needed to make an actor, again and again.

    `values`: the declared context of its constructor (SEMANTICS 8), in every life.
    """

    actor_id: str
    job_id: str
    owner: str
    owner_address: str
    class_id: str
    class_name: str
    class_pickle: bytes
    methods: bytes
    args: bytes
    buffers: list[bytes] | None
    deps: list[Outcome] | None
    refs: list[RefGroup] | None
    resources: dict[str, int]
    priority: int = 0
    env: str = ""
    name: str = ""
    namespace: str = ""
    detached: bool = False
    shared: bool = False
    max_restarts: int = 0
    max_concurrency: int = 0
    groups: dict[str, int] = {}
    checkpoint_every: float | str | None = None
    stored: Stored | None = None
    values: dict[str, str] | None = None
    placement: str = ""


class ActorDied(Message):
    """Why an actor is gone; `reason` in words that follow "it died: ".

    `kind`: killed | crashed | init_failed | owner_died | out_of_scope | exited | job_ended | unschedulable |
    group_removed (its placement group is) | supervision (its supervision gave up) | environment (no worker can
    have the one it asks for), and from the head alone: refused (it was never created) | forgotten (unknown, or its
    end is no longer remembered). `story`: what happened to it before, line by line, where that helps to understand
    the end.
    `drained`: it ended gracefully; the replies to the calls in its mailbox are there, or on their way.
    """

    kind: str
    reason: str
    error: Failed | None = None
    story: list[str] = []
    drained: bool = False


class CreateActor(Message, tag=50):
    """creator -> head. Answered by CreateActorReply, then ActorState as it changes. Idempotent by actor_id."""

    spec: ActorSpec
    get_if_exists: bool = False


class CreateActorReply(Message, tag=51):
    """head -> creator. `existing`: the id of the actor that has this name already (an error unless
    get_if_exists).

    The creator watches the actor from now on, or the existing one, whose state follows at once. Share a
    handle made with get_if_exists only after this reply: before it, its id may turn out to be another one.
    `class_id`: the class of the existing one; another than yours is worth a warning (SEMANTICS 23).
    """

    actor_id: str
    existing: str = ""
    error: str = ""
    class_id: str = ""


class PlaceActor(Message, tag=52):
    """head -> node: start this incarnation when its resources are free. Answered by ActorReady, ActorFailed
    or ActorLost.

    Incarnations begin at 1. `checkpoint`: the newest one that was acknowledged, None at the first start and
    when there is none.
    """

    spec: ActorSpec
    incarnation: int
    checkpoint: bytes | None = None


class HostActor(Message, tag=53):
    """node -> worker: become (dedicated) or take in (shared) this actor. Answered to the node by ActorReady
    or ActorFailed.
    """

    spec: ActorSpec
    incarnation: int
    checkpoint: bytes | None = None
    devices: dict[str, list[int]] = {}


class ActorReady(Message, tag=54):
    """worker -> node -> head: the constructor is done; calls may be sent to `address`."""

    actor_id: str
    incarnation: int
    worker_id: str
    address: str


class ActorFailed(Message, tag=55):
    """worker -> node -> head: the constructor raised, or the actor can never be placed (kind of `died`)."""

    actor_id: str
    incarnation: int
    died: ActorDied


class ActorLost(Message, tag=56):
    """node -> head: this incarnation is gone and will never answer again. `cause` in words with the last log
    lines. worker -> node -> head: a shared actor has ended, its process lives on.

    `expected`: it was asked to end (KillActor), or ended itself. `spent`: False when the actor is the victim
    of a co-tenant of its shared process, which does not count against its max_restarts (SEMANTICS 22).
    `worker_id`: the process that has ended, and has taken along all that lived there; empty when none has.
    """

    actor_id: str
    incarnation: int
    cause: str
    expected: bool = False
    spent: bool = True
    worker_id: str = ""


class ActorExit(Message, tag=57):
    """node -> worker: end this actor. `graceful`: what is queued runs first, then its exit hooks. Answered by
    ActorLost from the node.

    `moves`: what runs may end, what is queued goes back to its callers (NotTaken), and its state is stored. `returns`: there is to be
    another life of it.
    """

    actor_id: str
    graceful: bool = True
    moves: bool = False
    returns: bool = False


class ActorState(Message, tag=58):
    """head -> watchers: the state of an actor changed. `state`: pending | alive | restarting | dead. Dead is
    the last.

    `incarnation`: the one that is alive, or that is being made (pending, restarting). `died`: why it is dead;
    while it is restarting, why the incarnation before ended.
    """

    actor_id: str
    state: str
    incarnation: int = 0
    worker_id: str = ""
    address: str = ""
    died: ActorDied | None = None


class HostedActor(Message):
    """One incarnation that a node has. `worker_id` and `address`: where it is alive; empty while it is being made."""

    actor_id: str
    incarnation: int
    worker_id: str = ""
    address: str = ""


class HeldBundle(Message):
    """What a node has of an attempt of a placement group; see HeldBundles in policy/placement_decisions.py."""

    group_id: str
    attempt: int
    indexes: list[int]
    committed: bool
    claimed: bool = False


class Hosted(Message, tag=154):
    """node -> head, after NodeInfo and what was left unsaid: all incarnations that this node has, and all bundles. A head that has come
    back compares them with what it knows.
    """

    actors: list[HostedActor]
    bundles: list[HeldBundle] = []


class WatchActor(Message, tag=59):
    """handle holder -> head: tell me the state, now and at each change. Answered by ActorState. Idempotent."""

    actor_id: str


class FindActor(Message, tag=60):
    """anyone -> head: which actor has this name? Answered by FindActorReply(token)."""

    token: int
    name: str
    namespace: str


class FindActorReply(Message, tag=61):
    """head -> asker. `actor_id` is empty when there is none; then `near` are similar names in that namespace,
    and `elsewhere` are other namespaces that have exactly this name; `died` is why the last one of this name is dead, where
    that is remembered.
    """

    token: int
    actor_id: str = ""
    class_name: str = ""
    methods: bytes = b""
    owner: str = ""
    owner_address: str = ""
    near: list[str] = []
    elsewhere: list[str] = []
    class_id: str = ""
    died: str = ""


class KillActor(Message, tag=62):
    """anyone -> head: end this actor now; with `no_restart` for good. head -> node: end this incarnation, no
    other, with `no_restart` the last. Idempotent.

    `graceful`: what is queued runs first, then the exit hooks. To the node it applies wherever the
    incarnation is: waiting for resources (drop it), in its constructor, or alive. The node answers with
    ActorLost(expected=True). From others than the head `incarnation` is the life that is meant, where that matters, or 0. The
    head alone says `moves` (see ActorExit).
    """

    actor_id: str
    no_restart: bool = True
    graceful: bool = False
    incarnation: int = 0
    moves: bool = False


class ActorOutOfScope(Message, tag=63):
    """owner -> head: the last handle is gone; drain the mailbox and stop (SEMANTICS 23). Idempotent.

    Sent when every call made through those handles is in the mailbox already: what comes later may find the
    actor gone.
    """

    actor_id: str


class SaveCheckpoint(Message, tag=64):
    """actor's worker -> head: keep this state for the next incarnation. Answered by CheckpointSaved.
    Idempotent by `number`.

    `number` grows within one incarnation. The head keeps the newest and refuses what an older incarnation
    writes (SEMANTICS 21).
    """

    actor_id: str
    incarnation: int
    number: int
    data: bytes


class CheckpointSaved(Message, tag=65):
    """head -> actor's worker: stored, or a newer one is; `error` says why it is not, `over` that this life is over for the head."""

    actor_id: str
    incarnation: int
    number: int
    error: str = ""
    over: bool = False


class Supervise(Message, tag=150):
    """owner -> head: from now on these belong together (policy/supervision.py). Answered by SuperviseReply. Idempotent by its id.

    `members`: ids of actors and of supervisions, in order. `again`: it was begun before, as far as the sender knows, who wants to be told
    of its end, whoever it is; where it is not known any more it is over.
    """

    supervision_id: str
    members: list[str]
    strategy: str
    max_restarts: int
    within_s: float
    detached: bool = False
    again: bool = False


class SuperviseReply(Message, tag=151):
    """head -> owner: it has begun, or why not. `dead`: the actor that is, when that is why; `error` is how it died then."""

    supervision_id: str
    error: str = ""
    dead: str = ""


class Unsupervise(Message, tag=152):
    """anyone -> head: each on its own again. Answered by SupervisionOver to the sender and to the owner. Idempotent."""

    supervision_id: str


class SupervisionOver(Message, tag=153):
    """head -> owner, and who asked: it has ended. `gave_up`: it did so itself, and has ended its actors; `final`: one cannot come back."""

    supervision_id: str
    reason: str
    gave_up: bool = False
    final: bool = False
