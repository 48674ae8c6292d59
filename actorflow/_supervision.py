"""Supervision: actors that belong together, restarted together, up to a bound.

    async with af.supervise(reader, parser, writer, strategy="rest_for_one"):
        await writer.done()
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast

from actorflow import _option_checks as check
from actorflow import _runtime
from actorflow._core.base.errors import OptionError, SupervisionError
from actorflow._core.protocol.messages import SupervisionOver
from actorflow._core.worker.context import running_call
from actorflow._core.worker.core import Core

__all__ = ["Supervision", "supervise"]

SupervisionStrategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
_WHERE = "af.supervise"


class Supervision:
    """Actors that are supervised together: what `await af.supervise(...)` gives, and `async with` binds.

    It ends with the process that began it, unless it is detached; its actors live on then. It may be a member of another supervision, and
    may be given to other processes: what they do with it, they do with the same one.
    """

    __slots__ = ("id", "strategy")

    def __init__(self, supervision_id: str, strategy: str) -> None:
        self.id = supervision_id
        self.strategy = strategy

    async def wait(self) -> None:
        """Return when it has ended, by `end` or with the last of its actors. Raises SupervisionError when it has given up."""
        over = await _core().supervisions.wait_over(self.id)
        if over.gave_up:
            raise self._error(over)

    async def end(self) -> None:
        """Supervise no more: from now on each actor goes by its own `max_restarts`. Ending it again does nothing."""
        await _core().supervisions.end(self.id)

    def _error(self, over: SupervisionOver) -> SupervisionError:
        return SupervisionError.explain(
            which=f"supervision {self.id} ({self.strategy})",
            what="gave up, and its actors have ended with it",
            why=over.reason,
            next_step="mend what fails" + ("" if over.final else ", or have it bear more (max_restarts, within)"),
            supervision=self.id,
        )

    def __repr__(self) -> str:
        return f"<supervision {self.id}: {self.strategy}>"


class _Beginning:
    """What `af.supervise(...)` returns: `await` it, or use it in `async with`."""

    __slots__ = ("_detached", "_gave_up", "_max_restarts", "_members", "_strategy", "_supervision", "_task", "_watcher", "_within")

    def __init__(self, members: tuple[Any, ...], strategy: str, max_restarts: int, within: float, detached: bool) -> None:
        self._members = members
        self._strategy = strategy
        self._max_restarts = max_restarts
        self._within = within
        self._detached = detached
        self._supervision: Supervision | None = None
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gave_up: SupervisionError | None = None

    def __await__(self) -> Generator[Any, None, Supervision]:
        running = running_call.get()
        if running is not None and not running.actor_id and not self._detached:
            # The process of a task is anybody's: it ends when it has nothing to do, and the supervision would go with it, unseen.
            raise OptionError(
                f"{_WHERE}: one that is begun in a task would end with the task's process, a moment after the task. "
                "Begin it in the driver or in an actor, use `async with` for as long as the task runs, or lifetime='detached'"
            )
        return self._begin().__await__()

    async def _begin(self) -> Supervision:
        core = _core()
        ids: list[str] = []
        actors: dict[str, Any] = {}
        for member in self._members:
            if isinstance(member, Supervision):
                ids.append(member.id)
            else:
                actor = _actor_of(member)
                await core.wait_alive(actor)  # From now on it has the id that it keeps (get_if_exists), and a life to be restarted.
                ids.append((actor.same_as or actor).actor_id)
                actors[ids[-1]] = actor
        begin = core.supervisions.begin
        reply = await begin(ids, self._strategy, self._max_restarts, self._within, detached=self._detached)
        if reply.dead in actors:
            await core.wait_dead(actors[reply.dead])  # The word of it is on its way.
            raise core.actors.dead_error(actors[reply.dead].same_as or actors[reply.dead])
        if reply.dead:
            raise OptionError(f"{_WHERE}: supervision {reply.dead} has ended")
        if reply.error:
            raise OptionError(f"{_WHERE}: {reply.error}")
        return Supervision(reply.supervision_id, self._strategy)

    async def __aenter__(self) -> Supervision:
        self._supervision = await self._begin()
        self._task = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch(self._supervision), name=f"supervision {self._supervision.id}")
        return self._supervision

    async def _watch(self, supervision: Supervision) -> None:
        try:
            await supervision.wait()
        except SupervisionError as error:
            self._gave_up = error
            if self._task is not None:
                self._task.cancel(f"supervision {supervision.id} gave up")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        task, self._task = self._task, None
        assert self._watcher is not None
        assert self._supervision is not None
        if self._gave_up is not None:
            await self._watcher
            # The cancellation was ours. Should somebody else have cancelled as well, that stands.
            if task is not None and task.uncancel() == 0 and (error is None or isinstance(error, asyncio.CancelledError)):
                raise self._gave_up from None
            return
        self._watcher.cancel()
        await asyncio.wait([self._watcher])
        if not self._detached:
            await self._supervision.end()

    def __repr__(self) -> str:
        return f"<af.supervise of {len(self._members)}, not begun: await it, or use it in `async with`>"


def supervise(
    *members: Any,
    strategy: SupervisionStrategy = "one_for_one",
    max_restarts: int = 3,
    within: float = 5.0,
    lifetime: Literal["detached"] | None = None,
) -> _Beginning:
    """Supervise actors together: when one fails it is restarted, with others or alone, up to a bound. `await` it, or `async with`.

    `members`: handles, and other supervisions, in order. `strategy`: "one_for_one" restarts the one that failed, "one_for_all" all of
    them, "rest_for_one" it and those that were named after it. A failure is the unexpected end of an actor's process or node; an actor
    that is killed, or whose last handle is gone, leaves. For as long as they are supervised their own `max_restarts` does not count.

    More than `max_restarts` failures within `within` seconds, or an actor that cannot come back, and it gives up: all its actors end, and
    `wait()` raises SupervisionError; a block of `async with` is cancelled and raises it. A supervision that is a member of another one
    has failed there instead.

    Returns when all are alive and supervised. It ends with the block or the process, and the actors live on, unless `lifetime="detached"`;
    a task, whose process anybody may end, begins one in a block or a detached one.
    Raises OptionError, OptionTypeError, ActorDiedError.
    """
    if not members:
        raise OptionError(f"{_WHERE}: it takes actor handles, and has none")
    for member in members:
        if not isinstance(member, Supervision):
            _actor_of(member)
    try:
        checked = check.one_of(*STRATEGIES)("strategy", strategy)
        check.integer("max_restarts", max_restarts)
        if max_restarts < 0:
            raise check.wrong("max_restarts", max_restarts, "is no bound", "0 gives up at the first failure")
        check.span("within", within)
        detached = check.one_of("detached", None)("lifetime", lifetime) == "detached"
    except OptionError as error:
        raise type(error)(f"{_WHERE}: {error}", option=error.option) from None
    return _Beginning(members, cast("str", checked), max_restarts, float(within), detached)


def _core() -> Core:
    return cast("Core", _runtime.current())


def _actor_of(handle: Any) -> Any:
    from actorflow._actor import ActorHandle, state_of

    if not isinstance(handle, ActorHandle):
        raise TypeError(f"{_WHERE} takes actor handles and supervisions, not {type(handle).__name__}")
    return state_of(handle)
