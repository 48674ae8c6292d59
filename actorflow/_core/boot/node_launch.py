"""The start of a local cluster, as early as a program can: what is needed to start the node process, and nothing that takes long to import.

Most of the time until the first result is imports. The node process does its own while the driver does the rest of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from actorflow._core.base.errors import ClusterStartError, OptionError
from actorflow._core.base.resources import DEVICE_NAMES, GPU, default_arena_bytes, format_bytes
from actorflow._core.boot.node_config import LocalClusterConfig
from actorflow._core.boot.platforms import check_processes, cpu_count, has_processes, memory_bytes
from actorflow._core.boot.session_dir import SessionDir, create_session_dir, sweep_stale

if TYPE_CHECKING:
    import asyncio

START_TIMEOUT_S = 30.0
"""How long a node process may take to say that it is ready."""
SECRET_VARIABLES = ("ACTORFLOW_SECRET", "ACTORFLOW_TOKEN", "ACTORFLOW_TOKEN_FILE")
"""As in security/credential_files.py, which a local cluster does without. Of a program that joins another cluster next."""
ARENA_BYTES_MIN = 1 << 20
LOCAL_NODE = "local:node"
"""The address of the node of a cluster that lives in this process alone and has no session directory."""


class ClusterPlan(NamedTuple):
    """What `af.init` was asked for. `address`: "" for a new local cluster, "auto", or a node's address."""

    address: str
    resources: dict[str, int]
    arena_bytes: int
    namespace: str
    in_process: bool
    prestart: int
    cancel_grace_s: float = 5.0
    memory_threshold: float = 0.95
    looks: bool = False
    """It only looks at a cluster, and is no job of it."""
    devices: dict[str, int] | None = None
    """How many of which the user said there are, 0 for none; of the others the node has what it finds."""
    spill: str = ""
    """As LocalClusterConfig.spill."""


class LocalCluster:
    """A local cluster of this process, from its start: its session directory and, unless it is `in_process`, its node process.

    `session`: None where there are no unix sockets: nobody finds it, and nothing of it is on disk.
    """

    def __init__(self, session: SessionDir | None) -> None:
        self.session = session
        self.driver_id = os.urandom(6).hex()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_fd = -1
        self._life_fd = -1
        """Open for as long as this process lives, or the cluster: the node sees it close, also before we have connected."""
        self._pid = os.getpid()

    @property
    def node_address(self) -> str:
        """Where its node listens."""
        return self.session.node_address if self.session is not None else LOCAL_NODE

    @property
    def has_process(self) -> bool:
        """False when head and node run in this process."""
        return self._process is not None

    def start_node(self, plan: ClusterPlan) -> None:
        """Start the node process. Raises OSError."""
        assert self.session is not None
        self._ready_fd, write_fd = os.pipe()
        read_fd, self._life_fd = os.pipe()
        settings = LocalClusterConfig(
            session_dir=self.session.path,
            session_id=self.session.session_id,
            driver_id=self.driver_id,
            resources=plan.resources,
            arena_bytes=plan.arena_bytes,
            ready_fd=write_fd,
            life_fd=read_fd,
            sys_path=[path or os.getcwd() for path in sys.path],
            prestart=plan.prestart,
            cancel_grace_s=plan.cancel_grace_s,
            memory_threshold=plan.memory_threshold,
            devices=plan.devices,
            spill=plan.spill,
        )
        environ = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
        try:
            with open(self._log_path, "ab") as log_file:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "actorflow._core.boot.node_main", settings.to_json()],
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    pass_fds=[write_fd, read_fd],
                    start_new_session=True,
                    env={**environ, "PYTHONPATH": os.pathsep.join(settings.sys_path)},
                )
        finally:
            os.close(write_fd)
            os.close(read_fd)

    async def ready(self) -> None:
        """Return when the node accepts drivers. Raises ClusterStartError."""
        import asyncio

        if self._process is None:
            return
        loop = asyncio.get_running_loop()
        said: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(self._ready_fd, self._hear, said)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                answer = await said
        except TimeoutError:
            answer = b""
        finally:
            loop.remove_reader(self._ready_fd)
            self._close_ready_fd()
        if answer == b"ready":
            return
        tail = self._last_words()
        self.kill()
        raise ClusterStartError(
            f"the node process did not start within {START_TIMEOUT_S:g} s or ended before it was ready; its log ends with:\n{tail}"
        )

    def _close_ready_fd(self) -> None:
        ready_fd, self._ready_fd = self._ready_fd, -1
        if ready_fd >= 0:
            os.close(ready_fd)

    def _hear(self, said: asyncio.Future[bytes]) -> None:
        if not said.done():
            said.set_result(os.read(self._ready_fd, 16))

    def _last_words(self) -> str:
        with open(self._log_path, errors="replace") as log_file:
            return log_file.read()[-4000:].strip()

    @property
    def _log_path(self) -> str:
        assert self.session is not None
        return f"{self.session.logs}/node.log"

    # -- the end

    def wait(self, timeout_s: float) -> None:
        """Wait for the node process to end, which it has been asked to; then end it, and remove what it left. Blocking, bounded."""
        if self._process is not None and self._pid == os.getpid():
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._remove()

    def kill(self) -> None:
        """End the node process the hard way; its workers see it and end."""
        if self._process is not None and self._pid == os.getpid():
            self._process.kill()
            self._process.wait()
        self._remove()

    def abandon(self) -> None:
        """In a fork of this process: the node is no child of it, to wait for or to warn of, and must not take it for us."""
        if self._process is not None:
            self._process.returncode = 0
        self._close_fds()

    def _close_fds(self) -> None:
        self._close_ready_fd()
        life_fd, self._life_fd = self._life_fd, -1
        if life_fd >= 0:
            os.close(life_fd)

    def _remove(self) -> None:
        if self._pid != os.getpid():
            return
        self._close_fds()
        if self.session is not None and os.path.exists(self.session.path):
            self.session.remove()


def launch(plan: ClusterPlan) -> LocalCluster | None:
    """Start a local cluster, unless the plan is to join one. It is not waited for. Raises ClusterStartError."""
    if not plan.in_process:
        check_processes("joining a cluster" if plan.address else "a local cluster")
    elif not has_processes():
        return LocalCluster(None)
    if plan.address:
        return None
    cluster = LocalCluster(create_session_dir(os.urandom(6).hex()))
    if not plan.in_process:
        try:
            cluster.start_node(plan)
        except BaseException:
            cluster.kill()
            raise
    sweep_stale()
    return cluster


def local_resources(num_cpus: float | None, num_gpus: float | None, memory: int | None) -> dict[str, float]:
    """What this machine has, with the user's own numbers first. In user units; memory in bytes."""
    cpus = num_cpus if num_cpus is not None else float(cpu_count())
    return {"CPU": cpus, "GPU": num_gpus or 0.0, "memory": float(memory if memory is not None else int(memory_bytes() * 0.7))}


def given_devices(num_gpus: float | None, resources: Mapping[str, float], where: str = "af.init") -> dict[str, int]:
    """The numbers of devices that the user said, zeros too: they hide what is there. Raises OptionError for a part of one, and below 0."""
    given: dict[str, float] = {name: resources[name] for name in DEVICE_NAMES if name in resources}
    if num_gpus is not None:
        given[GPU] = num_gpus
    for name, count in given.items():
        if not 0 <= count < float("inf") or count != int(count):
            option = f"num_gpus={count:g}" if name == GPU else f"resources={{{name!r}: {count:g}}}"
            raise OptionError.explain(
                which=f"{where}({option})",
                what="is no number of devices",
                why="a machine has whole ones; shares are for the tasks that use them",
                next_step="Give a whole number, 0 to hide all, or leave it out for what is there",
                option=name,
            )
    return {name: int(count) for name, count in given.items()}


def check_simulated_devices() -> None:
    """Raise OptionError here, where the user sees it, for a variable that the node could not use."""
    if text := os.environ.get("ACTORFLOW_SIMULATED_DEVICES"):
        from actorflow._core.io.devices import simulated

        simulated.parse(text)


def arena_size(asked_bytes: int | None, where: str) -> int:
    """The size of the object store: what was asked for, else the default for this machine. Raises OptionError."""
    there = memory_bytes()
    if asked_bytes is None:
        return default_arena_bytes(there)
    if ARENA_BYTES_MIN <= asked_bytes <= there:
        return asked_bytes
    small = asked_bytes < ARENA_BYTES_MIN
    raise OptionError.explain(
        which=f"{where}(object_store_memory={asked_bytes})",
        what="is no size of an object store",
        why=f"values over 100 KiB go there, it needs {format_bytes(ARENA_BYTES_MIN)} or more"
        if small
        else f"it is shared memory, and this machine has {format_bytes(there)} in all; values that find no room there go to disk",
        next_step="Give another size, or leave it out for a part of the machine's memory",
        option="object_store_memory",
    )
