"""The process of the program: `python -m actorflow.testing.chaos.driver '{"system": ..., "address": ..., ...}'`.

It says `ready` when it has joined the cluster, goes on until a line comes on its standard input, and then waits for the calls under way.
What it has to tell is in its book; the last line says that nothing is missing there.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any

from actorflow.testing.chaos.program import Program
from actorflow.testing.chaos.records import Book
from actorflow.testing.chaos.systems import verbs_of
from actorflow.testing.chaos.work import COMPARABLE


async def main(system: str, address: str, ledger: str, book: str, seed: int, hang_s: float, comparable: bool) -> None:
    """Be the program."""
    verbs = verbs_of(system)
    await verbs.start(address)
    told = Book(Path(book))
    kinds = verbs.has & COMPARABLE if comparable else verbs.has
    program = Program(verbs, ledger, told, kinds=kinds, seed=seed, hang_s=hang_s)
    running = asyncio.create_task(program.run())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    program.end()
    await running
    gc.collect()  # What tracebacks of failed calls still hold.
    told.write(left=await verbs.stop())
    told.write(done=True)
    told.close()


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    asyncio.run(main(**given))
