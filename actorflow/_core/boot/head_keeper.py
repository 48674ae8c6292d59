"""Keeps the head of a cluster running: the first node starts it, and the next life when it ends before its time.

The next life is there already: a process that has imported everything, and waits for the word. So a head that dies is back as fast as its
journal can be read.

    HK-1  At most one life of the head has the word at a time: the next gets it when the one before has been reaped.
    HK-2  One that ends again and again at once is followed with pauses that grow (`policy/life_pauses.py`); one that says that nothing can
          be done ends the cluster, with the reason in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot import head_process
from actorflow._core.boot.head_process import HeadProcessConfig
from actorflow._core.policy.life_pauses import PAUSE_MAX_S, LifePauses
from actorflow._core.security.credential_files import without_secrets

log = logging.getLogger("actorflow")

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
SPARE_AFTER_S = 1.0
"""How long after a life has begun the next one is made ready: at the start of a cluster others need the CPUs more."""


@dataclass(slots=True)
class Life:
    """One process. `go_fd`: a byte there is the word; `ready_fd`: it says that it listens."""

    process: subprocess.Popen[bytes]
    pidfd: int
    go_fd: int
    ready_fd: int

    def close(self) -> int:
        """Wait for its end, and let go of it; its exit code."""
        code = self.process.wait()
        for fd in (self.pidfd, self.go_fd, self.ready_fd):
            os.close(fd)
        return code


class HeadKeeper:
    """See the module. `config(ready_fd, go_fd, life_fd)` makes that of a life; `over(reason)` is called when there will be no other."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Callable[[int, int, int], HeadProcessConfig],
        log_path: str,
        over: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._config = config
        self._log_path = log_path
        self._over = over
        self._life_fd, self._life_write_fd = os.pipe()
        self._present: Life | None = None
        self._spare: Life | None = None
        self._spare_timer: asyncio.TimerHandle | None = None
        self._ready_at: float | None = None
        self._pauses = LifePauses()
        self._restarting: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Return when the head listens. Raises OSError, and ClusterStartError when it does not within a bounded time, or ends."""
        self._ready_at = None
        life, self._spare = self._spare or self._new_life(), None
        self._present = life
        begun_at = self._length_of_log()
        self._loop.add_reader(life.pidfd, self._ended)
        with contextlib.suppress(BrokenPipeError):  # It has ended, which its pidfd says.
            os.write(life.go_fd, head_process.GO)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                said = await _read(self._loop, os.dup(life.ready_fd))
        except TimeoutError:
            what = f"the head was not ready within {START_TIMEOUT_S:g} s; its log ends with:\n{self._end_of_log()}"
            raise ClusterStartError(what) from None
        if said != head_process.READY:
            _, told, why = self._end_of_log(begun_at).rpartition(head_process.CANNOT_START)
            what = f"{told}{why}" if told else f"the head ended before it was ready; its log ends with:\n{self._end_of_log()}"
            raise ClusterStartError(what)
        self._ready_at = self._loop.time()
        self._spare_timer = self._loop.call_later(SPARE_AFTER_S, self._make_spare)

    def _length_of_log(self) -> int:
        return os.path.getsize(self._log_path)

    def _end_of_log(self, begun_at: int = 0) -> str:
        """`begun_at`: only what was written since it was so long."""
        with open(self._log_path, "rb") as log_file:
            log_file.seek(begun_at)
            return log_file.read().decode(errors="replace")[-2000:].strip()

    def _make_spare(self) -> None:
        self._spare_timer = None
        if self._spare is None and not self._stopped:  # Of two lives that began soon after another each has set a timer.
            try:
                self._spare = self._new_life()
            except OSError as error:
                log.warning("the next life of the head cannot be made ready: %s", error)

    def _new_life(self) -> Life:
        ready_fd, ready_write_fd = os.pipe()
        go_read_fd, go_fd = os.pipe()
        try:
            with open(self._log_path, "ab") as log_file:
                process = subprocess.Popen(
                    head_process.command(self._config(ready_write_fd, go_read_fd, self._life_fd)),
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    pass_fds=[ready_write_fd, go_read_fd, self._life_fd],
                    env=without_secrets(os.environ),
                )
        except BaseException:
            os.close(ready_fd)
            os.close(go_fd)
            raise
        finally:
            os.close(ready_write_fd)
            os.close(go_read_fd)
        os.set_blocking(ready_fd, False)
        return Life(process, os.pidfd_open(process.pid), go_fd, ready_fd)

    async def stop(self) -> None:
        """End it for good."""
        self._stopped = True
        if self._restarting is not None:
            self._restarting.cancel()
        if self._spare_timer is not None:
            self._spare_timer.cancel()
        if self._spare is not None:
            self._spare.process.kill()  # It has nothing to end in order.
            self._spare.close()
        life = self._present
        if life is not None:
            self._loop.remove_reader(life.pidfd)
            life.process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await _readable(self._loop, life.pidfd)
            except TimeoutError:
                life.process.kill()
            life.close()
        os.close(self._life_fd)
        os.close(self._life_write_fd)

    def _ended(self) -> None:
        """It has ended, and nobody has asked for it."""
        life, self._present = self._present, None
        assert life is not None, "HK-1: it runs"
        self._loop.remove_reader(life.pidfd)
        code = life.close()
        if code == head_process.UNUSABLE:
            self._over(f"the head cannot go on with what is on its disk; see {self._log_path}")
            return
        pause_s = self._pauses.after(0.0 if self._ready_at is None else self._loop.time() - self._ready_at)
        how = f"signal {-code}" if code < 0 else f"code {code}"
        log.warning("the head has ended (%s); its next life begins in %g s", how, pause_s)
        self._restarting = self._loop.create_task(self._again(pause_s), name="start the head again")

    async def _again(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        try:
            await self.start()
        except (OSError, ClusterStartError) as error:
            log.error("the head cannot be started: %s", error)
            if self._present is not None:
                self._present.process.kill()  # It may hang; `_ended` hears of it.
            elif self._restarting is asyncio.current_task():
                self._restarting = self._loop.create_task(self._again(PAUSE_MAX_S), name="start the head again")


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    there: asyncio.Future[None] = loop.create_future()

    def is_there() -> None:
        if not there.done():
            there.set_result(None)

    loop.add_reader(fd, is_there)
    try:
        await there
    finally:
        loop.remove_reader(fd)


async def _read(loop: asyncio.AbstractEventLoop, fd: int) -> bytes:
    """What comes first, or nothing at its end. Closes the descriptor."""
    try:
        await _readable(loop, fd)
        return os.read(fd, 64)
    finally:
        os.close(fd)
