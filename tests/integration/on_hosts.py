"""Run the integration tests against three nodes on three hosts, with the driver on any of them, or through proxies that delay.

    python -m tests.integration.on_hosts                        # the driver on 1, on 2, on 3, and on 2 through the proxies
    python -m tests.integration.on_hosts --driver 3             # one run
    python -m tests.integration.on_hosts --driver 2 --proxy tests/integration/test_tasks.py -x

The hosts are network namespaces, so this needs root (actorflow.testing.lan says what else). Pytest, which is the driver, runs in that of
its host. With --proxy each node listens on one port and gives the others that of a proxy beside it (actorflow.testing.fault_proxy):
whatever goes to a node, and to workers and drivers there, takes 1 to 2 ms more, and so does the answer; the port behind the proxy is closed
to other hosts, so nothing goes around it. What pytest is told is in three_hosts.py.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from actorflow.testing.fault_proxy import FaultProxy
from actorflow.testing.lan import CUTS, problem
from tests.integration.three_hosts import NUMBER, PROXY_PORT, VARIABLE, Layout
from tests.security.hosts import PORT, ROOT, Host, hosts

DELAY_S = JITTER_S = 0.001
TESTS = ["tests/integration", "-m", "not slow and not soak", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
ALL = [(1, False), (2, False), (3, False), (2, True)]
"""Beside the head, beside all resources of a module that wants them on one node, and beside neither."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the first exit code of pytest that is not 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.on_hosts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--driver", type=int, choices=range(1, NUMBER + 1), help="the host of the driver (default: one after the other)")
    parser.add_argument("--proxy", action="store_true", help="through proxies with 1 ms of delay and as much of jitter")
    options, rest = parser.parse_known_args(arguments)
    if why := problem():
        print(f"there can be no hosts here: {why}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    runs = ALL if options.driver is None and not options.proxy else [(options.driver or 2, options.proxy)]
    codes = []
    for driver, proxied in runs:
        begin = time.monotonic()
        codes.append(run(driver - 1, proxied, rest))
        how = "through the proxies" if proxied else "straight"
        print(f"driver on host {driver}, {how}: exit code {codes[-1]} after {time.monotonic() - begin:.0f} s", flush=True)
    return next(filter(None, codes), 0)


def run(driver: int, proxied: bool, rest: Sequence[str]) -> int:
    """One run of pytest. Returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="afh-") as directory, hosts(NUMBER, Path(directory)) as found:
        if proxied:
            for number, host in enumerate(found):
                _start_proxy(host, number)
        told = Layout(found, driver, proxied).to_json()
        # Options beside files or names of tests: these come in the place of the folder.
        chosen = [word for word in rest if word.partition("::")[0].endswith(".py")]
        words = [*(TESTS[1:] if chosen else TESTS), *rest]
        env = {**os.environ, VARIABLE: told, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(found[driver].lan.command([sys.executable, "-m", "pytest", *words]), cwd=ROOT, env=env)
        try:
            return _wait(process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Pytest has got it too, and ends.


def _start_proxy(host: Host, number: int) -> None:
    code = f"from tests.integration.on_hosts import serve; serve({host.address!r}, {number})"
    words = [sys.executable, "-c", code]
    process = host.lan.start(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"the proxy on {host.address} did not start: what it said is above")
    around = f"ip saddr != {host.address} tcp dport {PORT} drop"
    host.lan.run(["nft", f"add rule ip {CUTS} in {around}"])


def serve(address: str, seed: int) -> None:
    """Be the proxy of the node on this host, until killed."""

    async def forever() -> None:
        proxy = FaultProxy(address, PORT, seed=seed)
        proxy.shape(delay_s=DELAY_S, jitter_s=JITTER_S)
        await proxy.start(address, PROXY_PORT)
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()

    asyncio.run(forever())


if __name__ == "__main__":
    sys.exit(main())
