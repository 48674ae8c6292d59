"""Keeps the head of a cluster running: the first node starts it, and starts it again when it ends before its time.

    HK-1  At most one life of the head runs at a time: the next is started when the one before has been reaped.
    HK-2  One that ends again and again at once is started with pauses that grow to PAUSE_MAX_S; one that says that nothing can be done ends
          the cluster, with the reason in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot import head_process
from actorflow._core.boot.head_process import HeadProcessConfig
from actorflow._core.security.credential_files import without_secrets

log = logging.getLogger("actorflow")

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
STEADY_S = 10.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 2.0


class HeadKeeper:
    """See the module. `config(ready_fd, life_fd)` makes that of the next life; `over(reason)` is called when there will be no other."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Callable[[int, int], HeadProcessConfig], log_path: str, over: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._config = config
        self._log_path = log_path
        self._over = over
        self._life_fd, self._life_write_fd = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        self._watch_fd = -1
        self._started_at = 0.0
        self._pause_s = PAUSE_FIRST_S
        self._restarting: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def pid(self) -> int:
        """Of the present life; 0 between two."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Return when the head listens. Raises ClusterStartError with the end of its log."""
        ready_fd, write_fd = os.pipe()
        os.set_blocking(ready_fd, False)
        self._started_at = self._loop.time()
        try:
            process = self._process = self._spawn(write_fd)
        except BaseException:
            os.close(ready_fd)
            raise
        finally:
            os.close(write_fd)
        self._watch_fd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._watch_fd, self._ended)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said = await _read(self._loop, ready_fd)
        except TimeoutError:
            said = b""
        finally:
            os.close(ready_fd)
        if said != head_process.READY:
            what = f"the head did not start within {START_TIMEOUT_S:g} s, or ended before it was ready"
            raise ClusterStartError(f"{what}; see {self._log_path}")

    def _spawn(self, ready_fd: int) -> subprocess.Popen[bytes]:
        with open(self._log_path, "ab") as log_file:
            return subprocess.Popen(
                head_process.command(self._config(ready_fd, self._life_fd)),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[ready_fd, self._life_fd],
                env=without_secrets(os.environ),
            )

    async def stop(self) -> None:
        """End it for good."""
        self._stopped = True
        if self._restarting is not None:
            self._restarting.cancel()
        process = self._process
        if process is not None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await _readable(self._loop, self._watch_fd)
            except TimeoutError:
                process.kill()
            self._reap()
        os.close(self._life_fd)
        os.close(self._life_write_fd)

    def _reap(self) -> int:
        process, self._process = self._process, None
        assert process is not None, "HK-1: it runs"
        self._loop.remove_reader(self._watch_fd)
        os.close(self._watch_fd)
        return process.wait()

    def _ended(self) -> None:
        """It has ended, and nobody has asked for it."""
        code = self._reap()
        if self._stopped:
            return
        if code == head_process.UNUSABLE:
            self._over(f"the head cannot go on with what is on its disk; see {self._log_path}")
            return
        if self._loop.time() - self._started_at > STEADY_S:
            self._pause_s = PAUSE_FIRST_S
        how = f"signal {-code}" if code < 0 else f"code {code}"
        log.warning("the head has ended (%s); it is started again in %g s", how, self._pause_s)
        self._restarting = self._loop.create_task(self._again(self._pause_s), name="start the head again")
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    async def _again(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        try:
            await self.start()
        except (OSError, ClusterStartError) as error:
            log.error("the head cannot be started: %s", error)
            if self._process is None:
                self._restarting = self._loop.create_task(self._again(PAUSE_MAX_S), name="start the head again")


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """Return when there is something to read. The loop reads this descriptor for nobody else from now on."""
    there: asyncio.Future[None] = loop.create_future()
    loop.remove_reader(fd)
    loop.add_reader(fd, lambda: there.done() or there.set_result(None))
    try:
        await there
    finally:
        loop.remove_reader(fd)


async def _read(loop: asyncio.AbstractEventLoop, fd: int) -> bytes:
    await _readable(loop, fd)
    return os.read(fd, 64)
