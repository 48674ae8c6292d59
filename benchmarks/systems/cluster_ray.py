# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined,misc"
"""Ray's rows of `benchmarks.cluster`, on its own multi-node `Cluster`. Run by the peers' interpreter (`make peers`)."""

from __future__ import annotations

import ray
from ray.cluster_utils import Cluster

from benchmarks.systems.ray_ import AsyncEcho, async_calls, sync_calls, with_actors
from benchmarks.systems.serve import Workload, claim_stdout, serve

FAR = {"far": 1.0}

WORKLOADS: dict[str, Workload] = {
    "cross_sync": with_actors(lambda: [AsyncEcho.options(resources=FAR).remote()], sync_calls),
    "cross_async": with_actors(lambda: [AsyncEcho.options(resources=FAR).remote()], async_calls),
}

if __name__ == "__main__":
    answers = claim_stdout()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1, resources=FAR)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        serve(WORKLOADS, answers)
    finally:
        ray.shutdown()
        cluster.shutdown()
