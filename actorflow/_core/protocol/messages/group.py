"""Placement groups. What is said about them travels inside a `GroupWord`, so that who has no groups need not load this module.

The protocol is in docs/internals/placement-groups.md; an attempt is one round of prepare and commit of one group, and its
number is in every word about it.
"""

import msgspec

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.cluster import GroupWord

# -- drivers and workers


class CreateGroup(Message, tag=1):
    """creator -> head: reserve these bundles. Answered by GroupState as it changes, or by GroupRefused. Idempotent by group_id.

    `bundles` in units of 1/10000, `labels` as in label_selector. `creator`: the actor that creates it, and whose life it shares.
    """

    group_id: str
    job_id: str
    strategy: str
    bundles: list[dict[str, int]]
    labels: list[dict[str, str]] = []
    name: str = ""
    namespace: str = ""
    detached: bool = False
    creator: str = ""
    priority: int = 0


class GroupRefused(Message, tag=2):
    """head -> creator: it was not created, and never will be, for this reason."""

    group_id: str
    reason: str


class WatchGroup(Message, tag=3):
    """anyone who uses it -> head: tell me the state, now and at each change. Answered by GroupState. Idempotent."""

    group_id: str


class RemoveGroup(Message, tag=4):
    """anyone -> head: remove it, and end what runs in it. Answered by GroupState to all who watch. Idempotent."""

    group_id: str


class GroupState(Message, tag=5):
    """head -> watchers: the state changed. `state`: pending | created | rescheduling | removed. Removed is the last.

    `nodes`: where each bundle is, empty for one that has no place. `addresses` of these nodes. `bundles`: what each has. `reason`:
    why it waits, or is no more. `infeasible`: no set of the nodes that there are could ever hold it.
    """

    group_id: str
    state: str
    nodes: list[str] = []
    addresses: dict[str, str] = {}
    bundles: list[dict[str, int]] = []
    reason: str = ""
    infeasible: bool = False


class FindGroup(Message, tag=6):
    """anyone -> head: which group has this name? Answered by GroupFound(token)."""

    token: int
    name: str
    namespace: str


class GroupFound(Message, tag=7):
    """head -> asker. `group_id` is empty when there is none; then `near` are similar names."""

    token: int
    group_id: str = ""
    strategy: str = ""
    bundles: list[dict[str, int]] = []
    labels: list[dict[str, str]] = []
    near: list[str] = []


# -- head to node


class PrepareBundles(Message, tag=10):
    """head -> node: set the resources of these bundles aside, all of them or none. Answered by BundlesPrepared or BundlesRefused.

    `keep_s`: without a commit in this time they are given back. `commit`: nothing else is waited for. `claim`: wait for room instead
    of refusing. Idempotent.
    """

    group_id: str
    attempt: int
    bundles: dict[int, dict[str, int]]
    keep_s: float
    commit: bool = False
    claim: bool = False


class CommitBundles(Message, tag=11):
    """head -> node: every node has prepared: open the bundles to leases. No answer, or BundlesLost. Idempotent."""

    group_id: str
    attempt: int


class CancelBundles(Message, tag=12):
    """head -> node: the attempt is given up: give back what it has. No answer. Idempotent."""

    group_id: str
    attempt: int


class ReturnBundles(Message, tag=13):
    """head -> node: the group is removed: end its leases and give back everything up to this attempt. Answered by BundlesReturned."""

    group_id: str
    attempt: int


# -- node to head


class BundlesPrepared(Message, tag=20):
    """node -> head: what the attempt asks of this node is set aside."""

    group_id: str
    attempt: int


class BundlesRefused(Message, tag=21):
    """node -> head: it is not, for this reason."""

    group_id: str
    attempt: int
    reason: str


class BundlesLost(Message, tag=22):
    """node -> head: what the attempt had here was given back, without the head having asked for it."""

    group_id: str
    attempt: int
    reason: str


class BundlesReturned(Message, tag=23):
    """node -> head: nothing of the group is left here up to this attempt, and none of its leases runs."""

    group_id: str
    attempt: int


class HeldEntry(Message):
    """What a node has of one attempt."""

    group_id: str
    attempt: int
    indexes: list[int]
    committed: bool
    claimed: bool = False


class BundlesHeld(Message, tag=24):
    """node -> head, on a new connection, after NodeInfo: what I have of placement groups."""

    held: list[HeldEntry]


class OutsideUsed(Message, tag=25):
    """node -> head: what leases outside bundles use here, in units. Said when it has changed, by nodes that have heard of groups."""

    amounts: dict[str, int]


Word = (
    CreateGroup | GroupRefused | WatchGroup | RemoveGroup | GroupState | FindGroup | GroupFound
    | PrepareBundles | CommitBundles | CancelBundles | ReturnBundles
    | BundlesPrepared | BundlesRefused | BundlesLost | BundlesReturned | BundlesHeld | OutsideUsed
)  # fmt: skip

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Word).decode


def say(word: Word) -> GroupWord:
    """The message that carries a word."""
    return GroupWord(_encode(word))


def hear(message: GroupWord) -> Word:
    """The word that a message carries. Raises ProtocolError when it carries none."""
    try:
        word: Word = _decode(message.word)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{len(message.word)} bytes are not a word about placement groups: {error}") from error
    return word
