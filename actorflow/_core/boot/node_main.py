"""The node process of a local cluster: it holds the head and the node role, and forks the workers.

    python -m actorflow._core.boot.node_main CONFIG_JSON

It says `ready` on the descriptor named in the configuration, and ends when its driver is gone or says so.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the process. The zygote is forked before anything else: no thread and no loop exists yet."""
    from actorflow._core.boot.node_config import LocalClusterConfig

    config = LocalClusterConfig.from_json(sys.argv[1])
    from actorflow._core.boot.node_process import run

    sys.exit(run(config))


if __name__ == "__main__":
    os.environ.pop("PYTHONSTARTUP", None)
    main()
