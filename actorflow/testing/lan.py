"""Several hosts on one Linux machine: network namespaces on a bridge, whose cables can be cut. For tests with real processes and real cuts.

    with Lan(3) as lan:
        server = lan.hosts[0].start([sys.executable, "server.py", lan.hosts[0].address])
        client = lan.hosts[1].start([sys.executable, "client.py", lan.hosts[0].address])
        lan.cut(lan.hosts[1], lan.hosts[0])         # packets of 1 do not reach 0; those of 0 still reach 1
        lan.part([lan.hosts[2]])                    # 2 and all others do not hear each other
        lan.heal()
        lan.limit(1000)                             # from now on each cable carries 1 Gbit/s, in either direction

Each host has an address of its own, its own loopback and ports; files, processes and the clock are the machine's. It needs root, `ip`
and `tc` (iproute2), and `nft` (nftables): `problem()` says what is missing.

    LA-1  Packets that are cut are dropped without a word, as where a cable is out: no reset, no ICMP.
    LA-2  `close` ends what was started here and removes every namespace, cable and bridge, also after an error on the way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from actorflow.testing.errors import SimulationMisuse

HOSTS_MAX = 100
COMMAND_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0
BURST = "256kb"
"""What a limited cable may take at once: several of the largest packets that a kernel hands over."""
QUEUE = "50ms"
"""How long a packet may wait for its turn on a limited cable before it is dropped."""
CUTS = "actorflow_cuts"
"""The table of nftables on each host that drops what is cut, in its chain `in`."""

_numbers = iter(range(1, 1 << 20))


def problem() -> str:
    """Why there can be no Lan here, and what to do; empty when there can."""
    if sys.platform != "linux":
        return f"network namespaces need Linux, and this is {sys.platform}"
    missing = [tool for tool in ("ip", "tc", "nft") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} cannot be found: install iproute2 and nftables"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    return ""


class LanHost:
    """One host."""

    def __init__(self, namespace: str, address: str, cable: str) -> None:
        self.namespace = namespace
        self.cable = cable
        """The device at the other end of its cable."""
        self.address = address
        """Its IP address, which the other hosts reach it by."""
        self._processes: list[subprocess.Popen[Any]] = []

    def __repr__(self) -> str:
        return f"LanHost({self.address})"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` on this host."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process here; options as for subprocess.Popen. It ends with the Lan."""
        process = subprocess.Popen(self.command(arguments), start_new_session=True, **options)
        self._processes.append(process)
        return process

    def run(self, arguments: Sequence[str], *, timeout_s: float = 60.0, env: Mapping[str, str] | None = None) -> str:
        """Run a command here and return what it printed. Raises subprocess.CalledProcessError, TimeoutExpired."""
        done = subprocess.run(self.command(arguments), check=True, capture_output=True, text=True, timeout=timeout_s, env=env)
        return done.stdout

    def end(self) -> None:
        """Kill what was started here, with all that it has started in its session."""
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(END_TIMEOUT_S)
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with contextlib.suppress(BrokenPipeError):  # What it has not read any more.
                    pipe.close()
        self._processes.clear()


class Lan:
    """See the module. Raises SimulationMisuse where there can be none."""

    def __init__(self, hosts: int) -> None:
        if why := problem():
            raise SimulationMisuse(f"cannot make hosts: {why}")
        if not 1 <= hosts <= HOSTS_MAX:
            raise SimulationMisuse(f"cannot make {hosts} hosts: 1 to {HOSTS_MAX} are possible")
        # Names of devices have 15 characters at most, and must differ from those of other test runs.
        self._name = f"af{os.getpid() % 1_000_000:x}{next(_numbers):x}"
        self._bridge = f"{self._name}br"
        self.hosts: list[LanHost] = []
        try:
            _run("ip", "link", "add", self._bridge, "type", "bridge")
            _run("ip", "link", "set", self._bridge, "up")
            for number in range(hosts):
                self._add_host(number)
        except BaseException:
            self.close()
            raise

    def _add_host(self, number: int) -> None:
        namespace, cable = f"{self._name}n{number}", f"{self._name}c{number}"
        _run("ip", "netns", "add", namespace)
        host = LanHost(namespace, f"10.77.0.{number + 1}", cable)
        self.hosts.append(host)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "link", "set", cable, "master", self._bridge, "up")
        _run("ip", "-n", namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run("ip", "-n", namespace, "link", "set", device, "up")
        chain = "chain in { type filter hook input priority 0; ip saddr @cut drop; }"
        _run(*host.command(["nft", f"table ip {CUTS} {{ set cut {{ type ipv4_addr; }}; {chain}; }}"]))

    # -- cuts

    def cut(self, sender: LanHost, receiver: LanHost) -> None:
        """What `sender` sends does not reach `receiver` any more; the other way is as it was."""
        _run(*receiver.command(["nft", f"add element ip {CUTS} cut {{ {sender.address} }}"]))

    def part(self, some: Iterable[LanHost]) -> None:
        """Those and all others do not hear each other any more."""
        here = list(some)
        for host in here:
            for other in self.hosts:
                if other not in here:
                    self.cut(host, other)
                    self.cut(other, host)

    def heal(self) -> None:
        """All cables are whole again."""
        for host in self.hosts:
            _run(*host.command(["nft", f"flush set ip {CUTS} cut"]))

    # -- speed

    def limit(self, megabits: float) -> None:
        """Every cable carries so many Mbit/s from now on, in each direction by itself. Raises SimulationMisuse."""
        if not megabits > 0:
            raise SimulationMisuse(f"cannot limit cables to {megabits!r} Mbit/s: give more than 0")
        rate = ["tbf", "rate", f"{round(megabits * 1000)}kbit", "burst", BURST, "latency", QUEUE]
        for host in self.hosts:
            _run("tc", "qdisc", "replace", "dev", host.cable, "root", *rate)  # What comes to the host,
            _run("tc", "-n", host.namespace, "qdisc", "replace", "dev", "eth0", "root", *rate)  # and what it sends.

    # -- the end

    def close(self) -> None:
        """See LA-2."""
        problems = []
        for host in self.hosts:
            host.end()
            _try("ip", "link", "delete", host.cable)  # At once: with its namespace it would go some time later.
            problems.append(_try("ip", "netns", "delete", host.namespace))
        problems.append(_try("ip", "link", "delete", self._bridge))
        self.hosts.clear()
        if any(problems):
            raise SimulationMisuse("some hosts could not be removed: " + "; ".join(filter(None, problems)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _run(*command: str) -> None:
    if why := _try(*command):
        raise SimulationMisuse(f"`{' '.join(command)}` failed: {why}")


def _try(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    return "" if done.returncode == 0 else done.stderr.strip() or f"it ended with {done.returncode}"
