"""actorflow: actors and tasks on many processes, for people who write `async def`.

    import actorflow as af

    @af.remote
    def square(x: int) -> int:
        return x * x

    async def main() -> None:
        print(await square(3))

    af.run(main)

`import actorflow` loads nothing but this file; each name brings what it needs at its first use.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name and take it for True; typing itself need not be loaded
if TYPE_CHECKING:
    from typing import Any

    from actorflow import errors, options, state, util
    from actorflow._actor import Actor, ActorClass, Handle, method
    from actorflow._api import (
        as_completed,
        check_cancelled,
        deref,
        drain_node,
        get,
        get_actor,
        get_runtime_context,
        kill,
        put,
        sync,
        timeout,
        wait,
        wait_dead,
    )
    from actorflow._context import context
    from actorflow._core.worker.object_ref import ObjectRef
    from actorflow._core.worker.streams import Stream
    from actorflow._groups import TaskGroup, map
    from actorflow._handle import BoundMethod
    from actorflow._lifecycle import init, is_initialized, run, shutdown
    from actorflow._placement import PlacementGroup, get_placement_group, placement_group
    from actorflow._remote_function import RemoteFunction, remote
    from actorflow._supervision import Supervision, supervise
    from actorflow.errors import (
        ActorAlreadyExistsError,
        ActorDiedError,
        ActorError,
        ActorflowError,
        ActorNotFoundError,
        ActorPlacementGroupRemoved,
        ActorUnavailableError,
        ActorUnschedulableError,
        AlreadyInitializedError,
        BackpressureError,
        CancelIgnored,
        CheckpointError,
        ClusterConnectionError,
        ClusterStartError,
        DeserializationError,
        ForkedError,
        GetTimeoutError,
        InternalError,
        NodeDiedError,
        NotInitializedError,
        NotYetSupportedError,
        ObjectFreedError,
        ObjectLostError,
        ObjectReconstructionFailedError,
        ObjectStoreFullError,
        OptionError,
        OptionTypeError,
        OutOfDiskError,
        OutOfMemoryError,
        OwnerDiedError,
        PendingCallsLimitExceeded,
        PlacementGroupError,
        PlacementGroupNotFoundError,
        PlacementGroupRemovedError,
        PlacementGroupUnschedulableError,
        ProtocolError,
        RuntimeEnvError,
        SerializationError,
        SupervisionError,
        TaskCancelledError,
        TaskError,
        TaskPlacementGroupRemoved,
        TaskTimeoutError,
        TaskUnschedulableError,
        WorkerCrashedError,
    )
    from actorflow.options import NodeAffinity
    from actorflow.state import available_resources, cluster_resources, nodes, timeline

__version__ = "0.1.0"

__all__ = [
    "Actor",
    "ActorAlreadyExistsError",
    "ActorClass",
    "ActorDiedError",
    "ActorError",
    "ActorNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "ActorflowError",
    "AlreadyInitializedError",
    "BackpressureError",
    "BoundMethod",
    "CancelIgnored",
    "CheckpointError",
    "ClusterConnectionError",
    "ClusterStartError",
    "DeserializationError",
    "ForkedError",
    "GetTimeoutError",
    "Handle",
    "InternalError",
    "NodeAffinity",
    "NodeDiedError",
    "NotInitializedError",
    "NotYetSupportedError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRef",
    "ObjectStoreFullError",
    "OptionError",
    "OptionTypeError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlacementGroup",
    "PlacementGroupError",
    "PlacementGroupNotFoundError",
    "PlacementGroupRemovedError",
    "PlacementGroupUnschedulableError",
    "ProtocolError",
    "RemoteFunction",
    "RuntimeEnvError",
    "SerializationError",
    "Stream",
    "Supervision",
    "SupervisionError",
    "TaskCancelledError",
    "TaskError",
    "TaskGroup",
    "TaskPlacementGroupRemoved",
    "TaskTimeoutError",
    "TaskUnschedulableError",
    "WorkerCrashedError",
    "as_completed",
    "available_resources",
    "check_cancelled",
    "cluster_resources",
    "context",
    "deref",
    "drain_node",
    "errors",
    "free",
    "get",
    "get_actor",
    "get_placement_group",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "map",
    "method",
    "nodes",
    "options",
    "placement_group",
    "put",
    "remote",
    "run",
    "shutdown",
    "state",
    "supervise",
    "sync",
    "timeline",
    "timeout",
    "util",
    "wait",
    "wait_dead",
]

_HOMES = {
    "actorflow._actor": ("Actor", "ActorClass", "Handle", "method"),
    "actorflow._api": (
        "as_completed",
        "check_cancelled",
        "deref",
        "drain_node",
        "free",
        "get",
        "get_actor",
        "get_runtime_context",
        "kill",
        "put",
        "sync",
        "timeout",
        "wait",
        "wait_dead",
    ),
    "actorflow._context": ("context",),
    "actorflow._core.worker.object_ref": ("ObjectRef",),
    "actorflow._core.worker.streams": ("Stream",),
    "actorflow._groups": ("TaskGroup", "map"),
    "actorflow._handle": ("BoundMethod",),
    "actorflow._lifecycle": ("init", "is_initialized", "run", "shutdown"),
    "actorflow._placement": ("PlacementGroup", "get_placement_group", "placement_group"),
    "actorflow._remote_function": ("RemoteFunction", "remote"),
    "actorflow._supervision": ("Supervision", "supervise"),
    "actorflow.options": ("NodeAffinity",),
    "actorflow.state": ("available_resources", "cluster_resources", "nodes", "timeline"),
}
_MODULES = frozenset({"errors", "options", "state", "util"})
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Type checkers must not see this function: with it they would take every name for an existing one.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> "Any":
        if name in _MODULES:
            return import_module(f"actorflow.{name}")
        if name.startswith("_") or (name not in _HOME_OF and name not in __all__):
            hint = ""
            if not name.startswith("_"):  # `from actorflow import _module` asks here first; difflib takes a millisecond.
                import difflib

                if near := difflib.get_close_matches(name, __all__, n=1):
                    hint = f". Did you mean: {near[0]!r}?"
            raise AttributeError(f"module 'actorflow' has no attribute {name!r}{hint}", name=name)
        # What has no home of its own is an error.
        value = getattr(import_module(_HOME_OF.get(name, "actorflow.errors")), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
