"""The integration tests against three nodes on three hosts, as one host sees it. `python -m tests.integration.on_hosts` runs them.

The hosts are there for the whole run, and each module has a cluster of its own on them, with the resources it asks for: they are shared
out over the three nodes, so that the sums are those of the local cluster. A module whose calls need more than the share of one node, such
as a task of 4 CPUs that fills the cluster, says so with `ON_ONE_NODE = "why"`. Its resources are whole then, on the second host; the head
is on the first one, and the driver on any. A test that cannot have sense here is marked `local_only("why")` and deselected.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow.testing.lan import LanHost
from tests.integration import leaks
from tests.security.hosts import PORT, Host

VARIABLE = "ACTORFLOW_TEST_HOSTS"
"""How the runner tells pytest what there is."""
PROXY_PORT = PORT + 1
NUMBER = 3
WHOLE_AT = 1
"""The host with all resources of a module that needs them on one node: not that of the head."""
OF_EACH_NODE = ("cancel_grace", "object_store_memory")
OF_NODES = ("num_cpus", "num_gpus", "resources", "memory", *OF_EACH_NODE)
"""The options of `af.init` that a cluster of nodes is started with; the others are of the driver."""
STORE = "1GiB"


@dataclass(frozen=True)
class Layout:
    """`driver`: on which of the hosts, from 0 on. `proxied`: the nodes are reached through proxies only."""

    hosts: list[Host]
    driver: int
    proxied: bool

    @property
    def home(self) -> Path:
        """Of the host with the driver."""
        return self.hosts[self.driver].home

    @property
    def port(self) -> int:
        """Where all others reach the node of a host."""
        return PROXY_PORT if self.proxied else PORT

    def to_json(self) -> str:
        hosts = [(host.lan.namespace, host.address, host.lan.cable, str(host.home)) for host in self.hosts]
        return json.dumps({"hosts": hosts, "driver": self.driver, "proxied": self.proxied})

    def leftovers(self) -> list[str]:
        return [left for host in self.hosts for left in leaks.leftovers(host.home)]


@cache
def layout() -> Layout | None:
    """What the runner has laid out; None in a run of local clusters."""
    if VARIABLE not in os.environ:
        return None
    told = json.loads(os.environ[VARIABLE])
    hosts = [Host(LanHost(namespace, address, cable), Path(home)) for namespace, address, cable, home in told["hosts"]]
    return Layout(hosts, told["driver"], told["proxied"])


# -- one cluster


def shares(options: dict[str, Any], why_whole: str) -> list[dict[str, Any]]:
    """What each node has of these options. Whole resources: 4 CPUs are 2, 1 and 1, 2 GPUs are 1, 1 and 0."""
    if why_whole:
        none = {"num_cpus": 0, "num_gpus": 0, "resources": {}, "memory": 0}
        return [dict(options) if index == WHOLE_AT else {**none} for index in range(NUMBER)]
    found: list[dict[str, Any]] = []
    for index in range(NUMBER):
        own: dict[str, Any] = {name: _share(name, options[name], index) for name in ("num_cpus", "num_gpus", "memory")}
        own["resources"] = {name: _share(name, amount, (index + 1) % NUMBER) for name, amount in options["resources"].items()}
        found.append(own)
    return found


def _share(name: str, amount: Any, index: int) -> int:
    if isinstance(amount, str):
        digits = amount.removesuffix("GiB")
        assert digits.isdigit(), f"{name}={amount!r}: whole GiB can be shared out over the hosts"
        amount = int(digits) << 30
    whole, left = divmod(int(amount), NUMBER)
    assert math.isclose(amount, int(amount)), f"{name}={amount!r}: whole numbers can be shared out over the hosts"
    return whole + (index < left)


def _arguments(host: Host, share: dict[str, Any], plan: Layout) -> list[str]:
    found = ["--host", host.address, "--port", str(PORT), "--num-cpus", str(share["num_cpus"]), "--num-gpus", str(share["num_gpus"])]
    found += ["--memory", str(share["memory"]), "--object-store-memory", str(share.get("object_store_memory", STORE))]
    found += ["--cancel-grace", str(share["cancel_grace"])] if "cancel_grace" in share else []
    found += [word for name, amount in share["resources"].items() if amount for word in ("--resource", f"{name}={amount}")]
    # The secret of all clusters of the run: made by the first one.
    found += ["--credentials", str(plan.hosts[0].home / "credentials")]
    return found + (["--advertise-port", str(PROXY_PORT)] if plan.proxied else [])


@contextlib.contextmanager
def cluster(plan: Layout, options: dict[str, Any], why_whole: str) -> Iterator[Any]:
    """Three nodes, and a session of the driver that has joined through the node of its host."""
    ours = shares(options, why_whole)
    for share in ours:
        share.update({name: options[name] for name in OF_EACH_NODE if name in options})
    head, *others = plan.hosts

    def start(index: int) -> None:
        host = plan.hosts[index]
        which = ["--address", f"{head.address}:{plan.port}"] if index else ["--head"]
        host.actorflow("start", *which, *_arguments(host, ours[index], plan))

    with ThreadPoolExecutor(NUMBER) as pool:
        try:
            start(0)
            list(pool.map(start, range(1, NUMBER)))
            driver = {name: value for name, value in options.items() if name not in OF_NODES}
            with af.init(address=f"{plan.hosts[plan.driver].address}:{plan.port}", log_to_driver=False, **driver) as session:
                yield session
        finally:
            list(pool.map(Host.stop, [*others, head]))
    assert leaks.until(lambda: not plan.leftovers()), plan.leftovers()


# -- what is run


def deselect(config: pytest.Config, items: list[pytest.Item], here: Callable[[pytest.Item], bool]) -> None:
    """Leave out the tests that are marked `local_only`, each with its reason. Others must use the cluster: no test passes beside it."""
    kept, left = [], []
    for item in items:
        mark = item.get_closest_marker("local_only")
        if mark is not None and not (len(mark.args) == 1 and isinstance(mark.args[0], str) and mark.args[0]):
            raise pytest.UsageError(f'{item.nodeid}: local_only("why") takes one reason')
        if layout() is None or not here(item):
            kept.append(item)
        elif mark is not None:
            LEFT_OUT[mark.args[0]] += 1
            left.append(item)
        elif "cluster" not in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f'{item.nodeid} does not use the fixture `cluster`: let it, or mark it local_only("why")')
        else:
            kept.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


LEFT_OUT: Counter[str] = Counter()


def summary(terminal: Any) -> None:
    """What was run against what, and what was left out and why."""
    plan = layout()
    if plan is None:
        return
    through = "through proxies" if plan.proxied else "straight"
    terminal.section(f"three hosts, {through}, the driver on host {plan.driver + 1}; Python {sys.version.split()[0]}")
    for why, number in sorted(LEFT_OUT.items()):
        terminal.line(f"left out {number:3}: {why}")
