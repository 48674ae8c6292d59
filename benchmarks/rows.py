"""The rows of the core benchmark: the workloads of Ray 2.60's `ray_perf`, by name.

The counts below are `ray_perf`'s own and the same for every system, with one exception: its "multi client
tasks async" queues 10,000 tasks per client, which is 20 seconds and more per sample for Ray; 2,500 saturate
it just as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

CPUS = os.cpu_count() or 1
#: The "n" of 1:n and n:n. `ray_perf` takes half of the CPUs: 1 on a two-core machine.
SERVERS = int(os.environ.get("BENCH_SERVERS") or max(1, CPUS // 2))
#: How many tasks or actors submit at once in the multi client and n:n rows.
CLIENTS = 4

#: Calls in flight at once in the 1:1 async rows, tasks in the batch and wait rows.
BATCH = 1000
#: Sequential operations per step in rows whose one operation takes about a microsecond.
SMALL = 100
TASKS_PER_CLIENT = 2500
CALLS_PER_CLIENT = 5000
CALLS_PER_CLIENT_ARG = 1000
#: Threads of the server in "1:1 actor calls concurrent".
CONCURRENCY = 16

PUT_TASKS, PUTS_PER_TASK = 10, 100
LARGE_ITEMS = 100 * 1024 * 1024  # int64: 839 MB
CHUNK_TASKS, CHUNKS_PER_TASK, CHUNK_ITEMS = 10, 10, 10 * 1024 * 1024  # int64: 84 MB each
REFS_IN_OBJECT = 10_000

ALL = ("actorflow", "ray", "xoscar", "floor")
NO_XOSCAR = ("actorflow", "ray", "floor")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a workload whose step does `per_step` operations of `unit`."""

    key: str
    title: str
    per_step: float
    #: What the floor does instead; the ratio to it says how much of the possible is reached.
    floor: str
    unit: str = "calls/s"
    #: Columns, as `system` or `system:variant`.
    columns: tuple[str, ...] = field(default=ALL)
    #: Long where a system gets faster while its shared memory is touched for the first time.
    warmup_s: float = 1.0


SEQUENTIAL = "one pickled echo call after the other over a unix socket, uvloop at both ends"
PIPELINED = "the same number of pickled echo calls in flight at once over a unix socket, uvloop at both ends"
PIPELINED_N = (
    "as many client processes with the same calls in flight to as many echo servers over unix sockets"
)

ROWS: tuple[Row, ...] = (
    Row("get_small", "single client get calls", SMALL, "pickle.loads of the value", "gets/s", NO_XOSCAR),
    Row("put_small", "single client put calls", SMALL, "pickle.dumps of the value", "puts/s", NO_XOSCAR),
    Row(
        "put_small_multi",
        "multi client put calls",
        PUT_TASKS * PUTS_PER_TASK,
        f"{PUT_TASKS} echo calls to {CPUS} processes, {PUTS_PER_TASK} pickle.dumps in each",
        "puts/s",
        NO_XOSCAR,
    ),
    Row(
        "put_large",
        "single client put gigabytes",
        LARGE_ITEMS * 8 / 1e9,
        "memcpy of the array into memory that has been touched",
        "GB/s",
        NO_XOSCAR,
        warmup_s=15,
    ),
    Row(
        "put_large_multi",
        "multi client put gigabytes",
        CHUNK_TASKS * CHUNKS_PER_TASK * CHUNK_ITEMS * 8 / 1e9,
        f"{CHUNK_TASKS} echo calls to {CPUS} processes, {CHUNKS_PER_TASK} memcpy into touched memory in each",
        "GB/s",
        NO_XOSCAR,
    ),
    Row(
        "tasks_sync",
        "single client tasks sync",
        1,
        SEQUENTIAL,
        "tasks/s",
        ("actorflow", "actorflow:direct", "ray", "floor"),
    ),
    Row("tasks_async", "single client tasks async", BATCH, PIPELINED, "tasks/s", NO_XOSCAR),
    Row(
        "tasks_async_multi",
        "multi client tasks async",
        CLIENTS * TASKS_PER_CLIENT,
        PIPELINED_N,
        "tasks/s",
        NO_XOSCAR,
    ),
    Row("tasks_batch", "single client tasks and get batch", 1, PIPELINED, "batches/s", NO_XOSCAR),
    Row("wait_1k", "single client wait 1k refs", 1, PIPELINED, "batches/s", NO_XOSCAR),
    Row(
        "get_10k_refs",
        "single client get object containing 10k refs",
        1,
        "pickle.loads of a list of 10,000 objects that hold an id each",
        "gets/s",
        NO_XOSCAR,
    ),
    Row(
        "actor_sync",
        "1:1 actor calls sync",
        1,
        SEQUENTIAL,
        columns=("actorflow", "actorflow:direct", "ray", "xoscar", "floor"),
    ),
    Row("actor_async", "1:1 actor calls async", BATCH, PIPELINED),
    Row("actor_concurrent", "1:1 actor calls concurrent", BATCH, PIPELINED, columns=NO_XOSCAR),
    Row("actor_1n", "1:n actor calls async", CALLS_PER_CLIENT * SERVERS, PIPELINED_N),
    Row("actor_nn", "n:n actor calls async", CALLS_PER_CLIENT * CLIENTS, PIPELINED_N),
    Row(
        "actor_nn_arg",
        "n:n actor calls with arg async",
        CALLS_PER_CLIENT_ARG * SERVERS,
        PIPELINED_N,
        columns=NO_XOSCAR,
    ),
    Row(
        "async_sync",
        "1:1 async-actor calls sync",
        1,
        SEQUENTIAL,
        columns=("actorflow", "actorflow:direct", "actorflow:inline", "ray", "xoscar", "floor"),
    ),
    Row(
        "async_async",
        "1:1 async-actor calls async",
        BATCH,
        PIPELINED,
        columns=("actorflow", "actorflow:direct", "ray", "xoscar", "floor"),
    ),
    Row("async_args", "1:1 async-actor calls with args async", BATCH, PIPELINED),
    Row("async_1n", "1:n async-actor calls async", CALLS_PER_CLIENT * SERVERS, PIPELINED_N),
    Row("async_nn", "n:n async-actor calls async", CALLS_PER_CLIENT * CLIENTS, PIPELINED_N),
)

CROSS_SEQUENTIAL = "one pickled echo call after the other over loopback TCP, uvloop at both ends, with TLS where the row has it"
CROSS_PIPELINED = "the same number of pickled echo calls in flight at once, over the same kind of connection"

#: The rows of `benchmarks.cluster`: calls of an async actor on another node.
CLUSTER_ROWS: tuple[Row, ...] = (
    Row("cross_sync", "async-actor calls to another node, sequential", 1, CROSS_SEQUENTIAL),
    Row("cross_async", "async-actor calls to another node, pipelined", BATCH, CROSS_PIPELINED),
)

#: The rows of `benchmarks.objects`: what moves through shared memory.
MIDDLE_BYTES = 200 * 1024
MIDDLE_COUNT = 200
BLOCK_BYTES = 16 * 1024 * 1024
BULK_BYTES = 1024 * 1024 * 1024
TWO_CLIENTS_BYTES, TWO_CLIENTS_PUTS = 64 * 1024 * 1024, 8
STREAM_ITEMS = 20_000

OBJECT_ROWS: tuple[Row, ...] = (
    Row(
        "obj_put_200k",
        "put of 200 KB arrays, 200 kept",
        MIDDLE_COUNT,
        "memcpy of as many arrays into memory that has been touched",
        "puts/s",
        NO_XOSCAR,
    ),
    Row(
        "obj_put_get_200k",
        "put and get of 200 KB arrays, 200 kept",
        MIDDLE_COUNT,
        "the same memcpy, and a view of each",
        "objects/s",
        NO_XOSCAR,
    ),
    Row(
        "obj_put_16m",
        "put of a 16 MiB array, dropped at once",
        BLOCK_BYTES / 1e9,
        "memcpy of the array into memory that has been touched",
        "GB/s",
        NO_XOSCAR,
        warmup_s=2,
    ),
    Row(
        "obj_put_1g",
        "put of a 1 GiB array, dropped at once",
        BULK_BYTES / 1e9,
        "memcpy of the array into memory that has been touched",
        "GB/s",
        NO_XOSCAR,
        warmup_s=6,
    ),
    Row("obj_get_1g", "get of a 1 GiB array", 1, "a view of the array", "gets/s", NO_XOSCAR),
    Row(
        "obj_put_two",
        "put of 64 MiB arrays by two clients at once",
        2 * TWO_CLIENTS_PUTS * TWO_CLIENTS_BYTES / 1e9,
        "two processes that memcpy as much into touched memory",
        "GB/s",
        NO_XOSCAR,
        warmup_s=6,
    ),
    Row(
        "obj_stream",
        "one stream of small items, bounded",
        STREAM_ITEMS,
        PIPELINED,
        "items/s",
        ("actorflow", "ray"),
    ),
)

BY_KEY = {row.key: row for row in (*ROWS, *OBJECT_ROWS, *CLUSTER_ROWS)}
