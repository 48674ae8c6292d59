"""The options of tasks, actors and methods: what exists, what each may be, and what it is when nobody says.

Every option is checked where it is written (`task_options`, `actor_options`, `method_options`): an unknown
name or a wrong value raises OptionError there, and says what would be right. What comes out is frozen, made
once, and reused by every call; all that a call needs of it is computed before the first one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, TypeVar

from actorflow import _option_checks as check
from actorflow._core.base.errors import NotYetSupportedError, OptionError
from actorflow._core.base.resources import CPU, GPU, parse_resources
from actorflow._core.policy.retry_pauses import RAISED_S

if TYPE_CHECKING:
    from actorflow._placement import PlacementGroup

__all__ = [
    "ActorKeywords",
    "ActorOptions",
    "MethodKeywords",
    "MethodOptions",
    "NodeAffinity",
    "TaskKeywords",
    "TaskOptions",
    "actor_options",
    "method_options",
    "task_options",
]

NUM_RETURNS_MAX = 100_000
"""References that one call may give: each is made before the call leaves."""
CONCURRENCY_SYNC = 1
"""`max_concurrency` of an actor without `async def` methods that does not say."""
CONCURRENCY_ASYNC = 1000
"""`max_concurrency` of an async actor that does not say."""


@dataclass(frozen=True, slots=True)
class NodeAffinity:
    """`scheduling_strategy=af.NodeAffinity(node_id)`: on this node; `soft`: or elsewhere when it is gone."""

    node_id: str
    soft: bool = False


INSIDE_MAX = 1_000
_INSIDE: dict[tuple[Any, str], Any] = {}
"""Options of children that were captured by a placement group."""

RetryExceptions: TypeAlias = "bool | tuple[type[Exception], ...] | list[type[Exception]]"
SchedulingStrategy: TypeAlias = "Literal['default', 'spread'] | NodeAffinity"


class _PlacedKeywords(TypedDict, total=False):
    """What tasks and actors have in common."""

    num_cpus: float
    num_gpus: float
    memory: int | str
    resources: Mapping[str, float]
    accelerator_type: str
    label_selector: Mapping[str, str]
    fallback_strategy: Sequence[Mapping[str, Mapping[str, str]]]
    priority: int
    scheduling_strategy: SchedulingStrategy
    placement_group: PlacementGroup | None
    bundle_index: int
    capture_child_tasks: bool
    runtime_env: Mapping[str, Any]
    env_vars: Mapping[str, str]
    working_dir: Any


class TaskKeywords(_PlacedKeywords, total=False):
    """The options of `@af.remote` on a function and of `f.options()`; `TaskOptions` tells what they mean."""

    num_returns: int
    max_retries: int
    retry_exceptions: RetryExceptions
    retry_delay: float
    max_calls: int | None
    timeout: float | None
    lifetime: Literal["detached"] | None


class ActorKeywords(_PlacedKeywords, total=False):
    """The options of an actor class and of `Cls.options()`; `ActorOptions` tells what they mean."""

    name: str | None
    namespace: str | None
    get_if_exists: bool
    lifetime: Literal["detached"] | None
    max_concurrency: int | None
    concurrency_groups: Mapping[str, int]
    max_restarts: int
    max_task_retries: int
    max_pending_calls: int
    process: Literal["dedicated", "shared"]
    checkpoint_every: float | Literal["call"] | None


class MethodKeywords(TypedDict, total=False):
    """The options of `@af.method` and of `handle.method.options()`; `MethodOptions` tells what they mean."""

    timeout: float | None
    concurrency_group: str
    num_returns: int
    max_task_retries: int | None
    retry_exceptions: RetryExceptions
    retry_delay: float
    interruptible: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Placed:
    """What tasks and actors ask of the node they run on."""

    num_cpus: float = 0
    """CPUs that are set aside while it runs. Admission only: nothing limits what the code uses."""
    num_gpus: float = 0
    """GPUs, a share of one (0.5) or whole ones; CUDA_VISIBLE_DEVICES names them."""
    memory: int | None = None
    """Bytes, or text such as "4GiB". Admission only."""
    custom: Mapping[str, float] | None = None
    """The option `resources`: amounts of the cluster's custom resources."""
    accelerator_type: str | None = None
    """Only on a node with this kind of accelerator."""
    label_selector: Mapping[str, str] | None = None
    """Only on a node with these labels."""
    fallback_strategy: tuple[dict[str, str], ...] = ()
    """Selectors that are tried in their order where no node with the labels has room, as in [{"label_selector": {"zone": "b"}}]."""
    priority: int = 0
    """Higher is served first when resources are short."""
    scheduling_strategy: str | NodeAffinity = "default"
    """"default", "spread" (over the nodes), or `af.NodeAffinity(...)`."""
    placement_group: PlacementGroup | None = None
    """In the resources that this group has reserved, and nowhere else."""
    bundle_index: int = -1
    """In this bundle of the group; -1: in any one that has room."""
    capture_child_tasks: bool = False
    """Tasks and actors that it creates run in its placement group too, and theirs, unless they say where."""
    env_vars: Mapping[str, str] | None = None
    """Environment variables of the worker process."""
    working_dir: str | None = None
    """Working directory of the worker process."""

    resources: dict[str, int] = field(init=False, repr=False, default_factory=dict)
    """All that is asked for, in units of 1/10000, zeros left out."""
    env: str = field(init=False, repr=False, default="")
    """The environment of the worker as JSON: `env_vars` and `working_dir`; empty when it needs none."""
    placement: str = field(init=False, repr=False, default="")
    """Labels and strategy as JSON, or the bundle of a placement group; empty for most."""
    in_group: bool = field(init=False, repr=False, default=False)
    """True when `placement` is the bundle of a placement group."""

    def __post_init__(self) -> None:
        demand = parse_resources(
            num_cpus=self.num_cpus, num_gpus=self.num_gpus, memory=self.memory, resources=self.custom
        )
        if self.accelerator_type is not None:
            # As Ray does: a node offers one of each kind it has, and whoever needs it takes next to nothing.
            demand[f"accelerator_type:{self.accelerator_type}"] = 10
        strategy = self.scheduling_strategy
        if self.label_selector or strategy != "default":
            from actorflow._core.policy.placement_wish import wish_text

            node, soft = (strategy.node_id, strategy.soft) if isinstance(strategy, NodeAffinity) else ("", False)
            text = wish_text(self.label_selector, self.fallback_strategy, spread=strategy == "spread", node=node, soft=soft)
            object.__setattr__(self, "placement", text)
        if self.fallback_strategy and not self.label_selector:
            what, instead = "has no label_selector to fall back from", "add label_selector={...}, or leave it out"
            raise _clash("fallback_strategy", what, instead, "fallback_strategy")
        if self.placement_group is not None or self.bundle_index >= 0 or self.capture_child_tasks:
            self._place_in_group(demand)
        environment = {"env_vars": self.env_vars, "working_dir": self.working_dir}
        wanted = {name: value for name, value in environment.items() if value}
        object.__setattr__(self, "resources", demand)
        if wanted:
            import json

            object.__setattr__(self, "env", json.dumps(wanted, sort_keys=True))


    def _place_in_group(self, demand: Mapping[str, int]) -> None:
        group, index = self.placement_group, self.bundle_index
        if group is None:
            which = f"bundle_index={index}" if index >= 0 else "capture_child_tasks=True"
            option = which.partition("=")[0]
            raise _clash(which, "has no placement group to stand for", "add placement_group=..., or leave it out", option)
        if self.placement:
            what = "does not go with label_selector or scheduling_strategy, as the group has chosen its nodes"
            raise _clash("placement_group", what, "give them to the group, as its bundle_label_selector and strategy", "placement_group")
        if problem := group.why_not(demand, index):
            raise OptionError(f"{group!r}: {problem}.", option="placement_group")
        self._enter_group(group.id, index)

    def _enter_group(self, group_id: str, index: int) -> None:
        from actorflow._core.policy.placement_wish import in_group

        object.__setattr__(self, "placement", in_group(group_id, index))
        object.__setattr__(self, "in_group", True)

    def inside(self, group_id: str) -> Self:
        """The same in any bundle of a placement group: for the children of what runs there (capture_child_tasks)."""
        known: Self | None = _INSIDE.get((self, group_id))
        if known is None:
            if len(_INSIDE) >= INSIDE_MAX:
                _INSIDE.clear()
            known = _INSIDE[self, group_id] = dataclasses.replace(self)
            known._enter_group(group_id, -1)
            known._compute()
        return known

    def _compute(self) -> None:
        """Fill in what follows from the other fields."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TaskOptions(_Placed):
    """The options of a remote function. Make them with `task_options`."""

    num_cpus: float = 1
    num_returns: int = 1
    """How many values the function returns, each with a reference of its own."""
    max_retries: int = 3
    """How often a task is tried again after its worker or node died; -1: for ever."""
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    """Also try again after the code raised: any exception (True), or one of these types."""
    retry_delay: float = RAISED_S
    """Seconds before that, doubled each time up to a minute; drawn from the upper half of each pause. 0: at once."""
    max_calls: int | None = None
    """Calls after which a worker process ends; 0: never. None: 1 with GPUs, whose memory only the end of a
    process gives back for certain, and never without.
    """
    timeout: float | None = None
    """Seconds from submission to the result, retries included; then the call is cancelled."""
    lifetime: str | None = None
    """"detached": the call outlives this program, and the cluster owns its result: `ref = await f.submit(...)`."""

    calls_max: int = field(init=False, repr=False, default=0)
    """`max_calls` with its default filled in."""
    special: bool = field(init=False, repr=False, default=False)
    """True when a call with them carries more than its arguments: one return value and no timeout is the rule."""
    scheduling_key: str = field(init=False, repr=False, default="")
    """Calls with equal keys can use each other's workers: resources, environment, priority and placement."""

    def __post_init__(self) -> None:
        _Placed.__post_init__(self)
        if self.lifetime is not None:
            self._check_detached()
        self._compute()

    def _check_detached(self) -> None:
        for option, value, why, instead in (
            ("num_returns", self.num_returns if self.num_returns != 1 else None, "the cluster owns one result", "leave it out"),
            ("timeout", self.timeout, "nobody may be there to see it", "leave it out, and use ref.cancel() when it takes too long"),
            ("max_calls", self.max_calls, "each such call has a process of its own", "leave it out"),
        ):
            if value is not None:
                raise _clash(f"{option}={value}", f'does not go with lifetime="detached": {why}', instead, option)

    def _compute(self) -> None:
        calls_max = self.max_calls if self.max_calls is not None else int(GPU in self.resources)
        key = f"{sorted(self.resources.items())} {self.priority} {self.placement} {calls_max} {self.env}"
        object.__setattr__(self, "calls_max", calls_max)
        special = self.num_returns != 1 or self.timeout is not None or self.capture_child_tasks
        object.__setattr__(self, "special", special)
        object.__setattr__(self, "scheduling_key", key)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ActorOptions(_Placed):
    """The options of an actor. Make them with `actor_options`."""

    name: str | None = None
    """By which `af.get_actor(name)` finds it; unique in its namespace."""
    namespace: str | None = None
    """None: the namespace of this program (`af.init(namespace=...)`, else "default")."""
    get_if_exists: bool = False
    """Give a handle to the actor that has this name already, if there is one."""
    lifetime: str | None = None
    """"detached": until it is killed. None: until its last handle is gone, or its creator's program ends."""
    max_concurrency: int | None = None
    """Calls that may run at once. None: 1 for a sync actor, 1000 for an async one."""
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)
    """Groups of methods with limits of their own: {"io": 2}."""
    max_restarts: int = 0
    """How often it is made again after its process or node died; -1: always."""
    max_task_retries: int = 0
    """How often a call is tried again when the actor is lost under it and restarts, or with `retry_exceptions` raises; -1: always. 0: at
    most once. An actor that is dead for good, as without `max_restarts` and supervision, has nobody who could try again."""
    max_pending_calls: int = -1
    """Calls of one process that may be under way; beyond it `.remote()` raises, others wait. -1: no limit."""
    process: str = "dedicated"
    """"dedicated": a worker process of its own. "shared": one with others; `async def` methods only."""
    checkpoint_every: float | str | None = None
    """Seconds between checkpoints, or "call": after each call, before its reply. Needs `__checkpoint__`."""

    special: bool = field(init=False, repr=False, default=False)
    """As TaskOptions.special."""

    def __post_init__(self) -> None:
        _Placed.__post_init__(self)
        if self.get_if_exists and self.name is None:
            raise _clash("get_if_exists=True", "needs a name to look for", 'add name="..."', "get_if_exists")
        if self.process == "shared" and not self.resources.keys().isdisjoint((CPU, GPU)):
            what = "cannot have CPUs or GPUs of its own, as many such actors live in one process"
            raise _clash(
                'process="shared"', what, "leave out num_cpus and num_gpus, or the process", "process"
            )

    def concurrency(self, *, is_async: bool) -> int:
        """`max_concurrency` with the default of its kind filled in."""
        return self.max_concurrency or (CONCURRENCY_ASYNC if is_async else CONCURRENCY_SYNC)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MethodOptions:
    """The options of a method. Make them with `method_options`."""

    timeout: float | None = None
    """As TaskOptions.timeout."""
    concurrency_group: str = ""
    """One of the class's `concurrency_groups`; empty: the default group."""
    num_returns: int = 1
    """As TaskOptions.num_returns."""
    max_task_retries: int | None = None
    """As ActorOptions.max_task_retries; None: as the actor says."""
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    """As TaskOptions.retry_exceptions."""
    retry_delay: float = RAISED_S
    """As TaskOptions.retry_delay."""
    interruptible: bool = False
    """A cancel may tear a running `def` method (SEMANTICS 5). Only with `@af.method`, not for one call."""

    special: bool = field(init=False, repr=False, default=False)
    """As TaskOptions.special; a concurrency group is carried too."""

    def __post_init__(self) -> None:
        special = self.num_returns != 1 or self.timeout is not None or bool(self.concurrency_group)
        object.__setattr__(self, "special", special)


# What each option may be ------------------------------------------------------------------------------------

Checks: TypeAlias = "Mapping[str, Callable[[str, Any], Any]]"

_PLACED_CHECKS: Checks = {
    "num_cpus": check.amount,
    "num_gpus": check.amount,
    "memory": check.size,
    "resources": check.custom_resources,
    "accelerator_type": check.name_or_none,
    "label_selector": check.label_selector,
    "fallback_strategy": check.fallback_strategy,
    "priority": check.integer,
    "scheduling_strategy": check.strategy(NodeAffinity),
    "placement_group": check.placement_group,
    "bundle_index": check.count(-1, "-1 means any bundle"),
    "capture_child_tasks": check.flag,
    "runtime_env": check.runtime_env,
    "env_vars": check.env_vars,
    "working_dir": check.working_dir,
}
TASK_CHECKS: Checks = {
    **_PLACED_CHECKS,
    "num_returns": check.count(0, most=NUM_RETURNS_MAX),
    "max_retries": check.count(-1, "-1 means for ever"),
    "retry_exceptions": check.retry_exceptions,
    "retry_delay": check.pause,
    "max_calls": check.optional(check.count(0, "0 means any number")),
    "timeout": check.seconds,
    "lifetime": check.one_of("detached", None),
}
ACTOR_CHECKS: Checks = {
    **_PLACED_CHECKS,
    "name": check.name_or_none,
    "namespace": check.name_or_none,
    "get_if_exists": check.flag,
    "lifetime": check.one_of("detached", None),
    "max_concurrency": check.optional(check.count(1)),
    "concurrency_groups": check.groups,
    "max_restarts": check.count(-1, "-1 means always"),
    "max_task_retries": check.count(-1, "-1 means always"),
    "max_pending_calls": check.pending_calls,
    "process": check.one_of("dedicated", "shared"),
    "checkpoint_every": check.checkpoint_every,
}
METHOD_CHECKS: Checks = {
    "timeout": check.seconds,
    "concurrency_group": check.group_name,
    "num_returns": check.count(0, most=NUM_RETURNS_MAX),
    "max_task_retries": check.optional(check.count(-1, "-1 means always")),
    "retry_exceptions": check.retry_exceptions,
    "retry_delay": check.pause,
    "interruptible": check.flag,
}

_FIELD_OF = {"resources": "custom"}
"""Options whose field has another name, because the computed field has theirs."""

Options = TypeVar("Options", TaskOptions, ActorOptions, MethodOptions)

DEFAULT_TASK = TaskOptions()
DEFAULT_ACTOR = ActorOptions()
DEFAULT_METHOD = MethodOptions()


def task_options(base: TaskOptions | None, target: str, given: Mapping[str, Any]) -> TaskOptions:
    """Return `base` (None: the defaults) with what is given on top; equal changes give the same instance.

    `target` says for the errors where the options stand, as in "@af.remote on square". Raises OptionError.
    """
    return _reuse(_make_task, base or DEFAULT_TASK, target, given)


def actor_options(base: ActorOptions | None, target: str, given: Mapping[str, Any]) -> ActorOptions:
    """As `task_options`, for an actor class."""
    return _reuse(_make_actor, base or DEFAULT_ACTOR, target, given)


def method_options(base: MethodOptions | None, target: str, given: Mapping[str, Any]) -> MethodOptions:
    """As `task_options`, for a method."""
    return _reuse(_make_method, base or DEFAULT_METHOD, target, given)


# `f.options(num_cpus=2).remote()` in a loop costs one look-up. `typed`: True is not 1.


@lru_cache(maxsize=512, typed=True)
def _make_task(base: TaskOptions, target: str, /, **given: Any) -> TaskOptions:
    return _checked(base, TASK_CHECKS, target, given)


@lru_cache(maxsize=512, typed=True)
def _make_actor(base: ActorOptions, target: str, /, **given: Any) -> ActorOptions:
    return _checked(base, ACTOR_CHECKS, target, given)


@lru_cache(maxsize=512, typed=True)
def _make_method(base: MethodOptions, target: str, /, **given: Any) -> MethodOptions:
    return _checked(base, METHOD_CHECKS, target, given)


def _reuse(make: Any, base: Options, target: str, given: Mapping[str, Any]) -> Options:
    if not given:
        return base
    if not all(isinstance(value, str | int | float | type | None) for value in given.values()):
        # Unhashable, or mutable and hashed by identity: nothing to remember it by.
        make = make.__wrapped__
    options: Options = make(base, target, **given)
    return options


def _checked(base: Options, checks: Checks, target: str, given: Mapping[str, Any]) -> Options:
    values: dict[str, Any] = {}
    try:
        for name, value in given.items():
            if name not in checks:
                raise check.unknown(name, checks)
            checked = checks[name](name, value)
            if name == "runtime_env":
                _merge_environment(values, given, checked)
            else:
                values[_FIELD_OF.get(name, name)] = checked
        if given.get("placement_group", True) is None:
            values.setdefault("bundle_index", -1)  # Out of the group, and of its bundle.
            values.setdefault("capture_child_tasks", False)
        return dataclasses.replace(base, **values)
    except OptionError as error:
        raise type(error)(f"{target}: {error}", option=error.option) from None
    except NotYetSupportedError as error:
        raise NotYetSupportedError(f"{target}: {error}") from None


def _merge_environment(
    values: dict[str, Any], given: Mapping[str, Any], runtime_env: Mapping[str, Any]
) -> None:
    for name, value in runtime_env.items():
        if name in given:
            raise _clash(name, f"is given twice, also in runtime_env={{{name!r}: ...}}", "give it once", name)
        values[name] = value


def _clash(which: str, what: str, next_step: str, option: str) -> OptionError:
    return OptionError.explain(which=which, what=what, next_step=next_step, option=option)
