"""What the processes say to one another: one file per noun, and the union that the codec reads and writes."""

from actorflow._core.protocol.messages.actor import (
    ActorDied,
    ActorExit,
    ActorFailed,
    ActorLost,
    ActorOutOfScope,
    ActorReady,
    ActorSpec,
    ActorState,
    CheckpointSaved,
    CreateActor,
    CreateActorReply,
    FindActor,
    FindActorReply,
    HostActor,
    KillActor,
    PlaceActor,
    SaveCheckpoint,
    WatchActor,
)
from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.call import (
    ActorCall,
    CallContext,
    Cancel,
    Define,
    GaveBack,
    NotListening,
    Release,
    Reply,
    TaskCall,
)
from actorflow._core.protocol.messages.cluster import GroupWord, NodeEntry, NodeLoad, NodesChanged
from actorflow._core.protocol.messages.lease import (
    Blocked,
    CancelLease,
    KillLease,
    LeaseGranted,
    LeaseLost,
    LeaseRedirect,
    LeaseRefused,
    ReclaimLease,
    RequestLease,
    ReturnLease,
    Unblocked,
    WornOut,
)
from actorflow._core.protocol.messages.object import (
    AddBorrow,
    BorrowAck,
    CancelObject,
    DropBorrow,
    Failed,
    Fetch,
    Fetched,
    Inline,
    Outcome,
    Rebuild,
    RefGroup,
    Stored,
)
from actorflow._core.protocol.messages.session import Hello, Leave, Needed, NodeInfo, Shutdown, Welcome
from actorflow._core.protocol.messages.state import StateQuery, StateReply, WorkerLog
from actorflow._core.protocol.messages.store import (
    Allocate,
    Allocated,
    Carved,
    FreeExtent,
    HandOver,
    MaySpill,
    Pin,
    Pinned,
    ReturnSlabs,
    Spillable,
    Unpin,
    WriterLost,
)
from actorflow._core.protocol.messages.stream import StreamClose, StreamCredit, StreamEnd, StreamItem

AnyMessage = (
    Hello | Welcome | Shutdown | Leave | Needed | NodeInfo | NodeLoad | NodesChanged | GroupWord
    | TaskCall | ActorCall | Reply | Cancel | Define | GaveBack | NotListening | Release
    | StreamItem | StreamEnd | StreamCredit | StreamClose
    | RequestLease | CancelLease | LeaseGranted | LeaseRefused | LeaseRedirect | LeaseLost | ReturnLease | ReclaimLease
    | KillLease | WornOut | Blocked | Unblocked
    | CreateActor | CreateActorReply | PlaceActor | HostActor | ActorReady | ActorFailed | ActorLost
    | ActorExit | ActorState
    | WatchActor | FindActor | FindActorReply | KillActor | ActorOutOfScope | SaveCheckpoint | CheckpointSaved
    | AddBorrow | BorrowAck | DropBorrow | Fetch | Fetched | Rebuild | CancelObject
    | Allocate | Allocated | Carved | HandOver | FreeExtent | Pin | Pinned | ReturnSlabs | Unpin | WriterLost
    | MaySpill | Spillable
    | StateQuery | StateReply | WorkerLog
)  # fmt: skip
"""Every message that may stand on a connection. Tags are unique over all of them (a test checks it)."""

__all__ = [
    "ActorCall",
    "ActorDied",
    "ActorExit",
    "ActorFailed",
    "ActorLost",
    "ActorOutOfScope",
    "ActorReady",
    "ActorSpec",
    "ActorState",
    "AddBorrow",
    "Allocate",
    "Allocated",
    "AnyMessage",
    "Blocked",
    "BorrowAck",
    "CallContext",
    "Cancel",
    "CancelLease",
    "CancelObject",
    "Carved",
    "CheckpointSaved",
    "CreateActor",
    "CreateActorReply",
    "Define",
    "DropBorrow",
    "Failed",
    "Fetch",
    "Fetched",
    "FindActor",
    "FindActorReply",
    "FreeExtent",
    "GaveBack",
    "GroupWord",
    "HandOver",
    "Hello",
    "HostActor",
    "Inline",
    "KillActor",
    "KillLease",
    "LeaseGranted",
    "LeaseLost",
    "LeaseRedirect",
    "LeaseRefused",
    "Leave",
    "MaySpill",
    "Message",
    "Needed",
    "NodeEntry",
    "NodeInfo",
    "NodeLoad",
    "NodesChanged",
    "NotListening",
    "Outcome",
    "Pin",
    "Pinned",
    "PlaceActor",
    "Rebuild",
    "ReclaimLease",
    "RefGroup",
    "Release",
    "Reply",
    "RequestLease",
    "ReturnLease",
    "ReturnSlabs",
    "SaveCheckpoint",
    "Shutdown",
    "Spillable",
    "StateQuery",
    "StateReply",
    "Stored",
    "StreamClose",
    "StreamCredit",
    "StreamEnd",
    "StreamItem",
    "TaskCall",
    "Unblocked",
    "Unpin",
    "WatchActor",
    "Welcome",
    "WorkerLog",
    "WornOut",
    "WriterLost",
]  # fmt: skip
