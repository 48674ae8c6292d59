"""Run your asyncio program, or a whole actorflow cluster, in one thread under virtual time, from a seed.

    from actorflow.testing import World

    def test_two_processes(seed: int) -> None:
        with World(seed) as world:
            server = world.start("server", serve)     # async def serve(host): await host.network.listen(...)
            client = world.host("client")
            answer = world.run_until(client.run(ask(client)))

Every process is a `Host` with an event loop, ports and an end of its own. The same seed gives the same
run: the same order of events, the same delays, the same faults (`World.trace.digest` is the proof;
`trace.py` says what spoils it). `world.kill(host)` ends a process as kill -9 does, without any `finally`;
`world.at_step(n, action)` does something at an exact point; a `Nemesis` does so at random. `History` and
the checkers judge what was seen.

Blocking `def` code needs greenlets: `pip install "actorflow[testing]"`. The product never imports this
package.
"""

from actorflow.testing.arena import SimArena
from actorflow.testing.checkers import (
    ALWAYS,
    Check,
    Violation,
    at_most_once,
    at_most_once_where,
    check,
    errors_allowed,
    errors_allowed_by,
    one_live_incarnation,
    one_terminal_result,
    per_caller_order,
    require,
    values_match,
)
from actorflow.testing.cluster import SimCluster, SimDriver, simulate
from actorflow.testing.errors import (
    InvariantBroken,
    SimulationError,
    SimulationFailed,
    SimulationMisuse,
    SimulationStuck,
)
from actorflow.testing.executor import SimExecutor, block_on
from actorflow.testing.fabric import Fabric
from actorflow.testing.faults import FaultPlan, Nemesis
from actorflow.testing.files import Files, SimDisk, SimFiles
from actorflow.testing.history import Call, End, History
from actorflow.testing.host import Host
from actorflow.testing.leaks import Leftovers, leftovers
from actorflow.testing.links import LinkProfile
from actorflow.testing.loop import SimLoop
from actorflow.testing.memory import SimMemory
from actorflow.testing.network import SimNetwork, SimStream
from actorflow.testing.nodes import Cluster
from actorflow.testing.processes import ProcessProfile, SimProcesses
from actorflow.testing.shrinking import shrink
from actorflow.testing.spill import SimSpill
from actorflow.testing.trace import Trace
from actorflow.testing.world import World

__all__ = [
    "ALWAYS",
    "Call",
    "Check",
    "Cluster",
    "End",
    "Fabric",
    "FaultPlan",
    "Files",
    "History",
    "Host",
    "InvariantBroken",
    "Leftovers",
    "LinkProfile",
    "Nemesis",
    "ProcessProfile",
    "SimArena",
    "SimCluster",
    "SimDisk",
    "SimDriver",
    "SimExecutor",
    "SimFiles",
    "SimLoop",
    "SimMemory",
    "SimNetwork",
    "SimProcesses",
    "SimSpill",
    "SimStream",
    "SimulationError",
    "SimulationFailed",
    "SimulationMisuse",
    "SimulationStuck",
    "Trace",
    "Violation",
    "World",
    "at_most_once",
    "at_most_once_where",
    "block_on",
    "check",
    "errors_allowed",
    "errors_allowed_by",
    "leftovers",
    "one_live_incarnation",
    "one_terminal_result",
    "per_caller_order",
    "require",
    "shrink",
    "simulate",
    "values_match",
]
