"""The node process of a local cluster: it holds the head and the node role, and forks the workers.

    python -m actorflow._core.boot.node_main CONFIG_JSON              of a local cluster
    python -m actorflow._core.boot.node_main cluster CONFIG_JSON      of a cluster of several nodes
    python -m actorflow._core.boot.node_main head CONFIG_JSON         the head's, of such a cluster

It says `ready` on the descriptor named in the configuration, and ends when its driver is gone or says so.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the process. The zygote is forked before there is a thread or a loop."""
    if sys.argv[1] == "cluster":
        import json

        from actorflow._core.boot import cluster_node

        sys.exit(cluster_node.run(cluster_node.ClusterNodeConfig(**json.loads(sys.argv[2]))))
    if sys.argv[1] == "head":
        from actorflow._core.boot import head_process

        sys.exit(head_process.main(sys.argv[2]))
    from actorflow._core.boot.node_config import LocalClusterConfig

    config = LocalClusterConfig.from_json(sys.argv[1])
    from actorflow._core.boot.node_process import run

    sys.exit(run(config))


if __name__ == "__main__":
    gc.disable()  # Until everything is imported: nothing of that is garbage.
    os.environ.pop("PYTHONSTARTUP", None)
    main()
