"""actorflow's rows of `benchmarks.cluster`: two nodes, the driver on one, an async actor on the other.

Arguments: `tls`, `inline`, both or none.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

import actorflow as af
from actorflow.testing import Cluster
from benchmarks.systems.actorflow_ import AsyncEcho, async_calls, sync_calls, with_actors
from benchmarks.systems.serve import AsyncWorkload, claim_stdout, serve_async

FAR = {"far": 1.0}

WORKLOADS: dict[str, AsyncWorkload] = {
    "cross_sync": with_actors(lambda: [AsyncEcho.options(resources=FAR).remote()], sync_calls),
    "cross_async": with_actors(lambda: [AsyncEcho.options(resources=FAR).remote()], async_calls),
}


async def main(address: str, *, inline: bool) -> None:
    answers = claim_stdout()
    async with af.init(address=address, inline=inline):
        await serve_async(WORKLOADS, answers)


if __name__ == "__main__":
    with Cluster(1, num_cpus=1, tls="tls" in sys.argv) as _cluster:
        _cluster.add_node(num_cpus=1, resources=FAR)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
            _runner.run(main(_cluster.address, inline="inline" in sys.argv))
