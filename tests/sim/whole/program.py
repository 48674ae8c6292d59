"""One driver of a run: it begins its operations at their moments, and records how each of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import actorflow as af
from actorflow.testing import Violation
from tests.sim.whole import work
from tests.sim.whole.plan import Driver, Step
from tests.sim.whole.verbs import VERBS

if TYPE_CHECKING:
    from actorflow.testing import History


class Program:
    """`main` is what the driver runs. `node_id(number)` says who a node of the plan is at the moment: empty when it is gone."""

    def __init__(self, name: str, driver: Driver, began_at: float, history: History, node_id: Callable[[int], str]) -> None:
        self.name = name
        self.violations: list[Violation] = []
        self._driver = driver
        self._began_at = began_at
        self._history = history
        self._node_id = node_id
        self._actors: dict[tuple[str, int], Any] = {}
        self._acknowledged: dict[tuple[str, int], dict[str, int]] = {}

    async def main(self) -> None:
        """Do all of it; then look whether what was acknowledged is there."""
        await asyncio.gather(*(self._do(step) for step in self._driver.steps))
        for (kind, slot), acknowledged in self._acknowledged.items():
            kept = await self.actor(kind, slot).all()
            if not acknowledged.items() <= kept.items():
                text = f"{self.name}: {kind} {slot} has acknowledged {acknowledged} and keeps {kept}"
                self.violations.append(Violation("WH-3", text))
        self._actors.clear()

    async def _do(self, step: Step) -> None:
        await asyncio.sleep(max(self._began_at + step.at - asyncio.get_running_loop().time(), 0.0))
        history, verb = self._history, VERBS[step.verb]
        target = f"{step.args['kind']} {step.args['slot']}" if step.verb == "call" else f"step {len(history.calls)}"
        call = history.invoked(self.name, target, step.verb, step)
        try:
            value = await verb.run(self, step.args, call.number)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Its frames hold references.
            error.__traceback__ = error.__cause__ = error.__context__ = None
            history.failed(call, error)
        else:
            history.ended(call, value)

    # -- for the operations

    def options(self, args: Any, **more: Any) -> dict[str, Any]:
        """Options that prefer the node that the arguments name."""
        node_id = self._node_id(args["on"]) if args.get("on", -1) >= 0 else ""
        return more | ({"scheduling_strategy": af.NodeAffinity(node_id, soft=True)} if node_id else {})

    def actor(self, kind: str, slot: int, on: int = -1) -> Any:
        """An actor of this program, or a named one of all of them; it is made when it is first asked for."""
        actor = self._actors.get((kind, slot))
        if actor is None:
            options = self.options({"on": on})
            target = f"{kind} {slot} of {self.name}"
            if kind == "named":
                target = f"named {slot}"
                options |= {"name": f"named-{slot}", "lifetime": "detached", "get_if_exists": True}
            maker = work.KINDS[kind]
            actor = self._actors[kind, slot] = (maker.options(**options) if options else maker).remote(target)
        return actor

    def acknowledged(self, kind: str, slot: int, call: int, number: int) -> None:
        """A call of an actor that remembers has returned."""
        self._acknowledged.setdefault((kind, slot), {})[str(call)] = number


async def sweep(slots: list[int]) -> None:
    """End the actors that outlive their drivers."""
    for slot in slots:
        try:
            await af.kill(await af.get_actor(f"named-{slot}"))
        except (af.ActorNotFoundError, af.ActorDiedError):
            continue
