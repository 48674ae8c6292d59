"""From a fork of the zygote to a worker process of its own: all that happens before user code may run."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actorflow._core.base.texts import text_to_path
from actorflow._core.boot.process_title import prctl, set_process_title
from actorflow._core.io.ports import WorkerSpec

Entry = Callable[[WorkerSpec], None]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One thread each unless the user says otherwise: with a worker for each CPU, more are only in the way."""

EXIT_FAILED = 1
EXIT_ORPHANED = 70

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Birth:
    """What a forked child knows of itself: who it is to be, and what it has inherited."""

    spec: WorkerSpec
    zygote_pid: int
    stdout_fd: int
    stderr_fd: int
    foreign_fds: tuple[int, ...]
    """Open here, and none of a worker's business."""
    handled_signals: tuple[int, ...]
    """The signals for which the zygote has handlers."""
    thread_env: Mapping[str, str]
    """THREAD_VARIABLES as the user of the node set them, where the zygote has 1."""


GC_THRESHOLDS = (10_000, 20, 20)
"""A call makes some ten objects that the collector looks at, and leaves none: at Python's 700 it would look after every seventy calls,
8 % of a worker's time."""


def live(birth: Birth, entry: Entry) -> int:
    """Become the worker process, run `entry`, return the exit code. The caller ends the process with it."""
    try:
        _take_own_life_in_hand(birth)
        _take_own_output(birth)
        _settle_in(birth.spec, birth.thread_env)
        entry(birth.spec)
        code = 0
    except SystemExit as request:
        code = _exit_code(request)
    except BaseException:
        traceback.print_exc()
        code = EXIT_FAILED
    return _leave(code)


def _take_own_life_in_hand(birth: Birth) -> None:
    """Signals, a session, and a life that ends with the zygote's: no user code may see this half done.

    SIGINT is ignored and no signal blocked already in the zygote.
    """
    # The zygote has one thread: the death of the thread that forked us is the death of the zygote.
    prctl()(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != birth.zygote_pid:
        os._exit(EXIT_ORPHANED)
    signal.set_wakeup_fd(-1)
    for number in birth.handled_signals:
        # Not the public one: the enums that it makes cost 34 page faults, a tenth of a millisecond.
        _signal.signal(number, _signal.SIG_DFL)
    os.setsid()


def _take_own_output(birth: Birth) -> None:
    """Write to the node's pipes, and close whatever else came from the zygote."""
    os.dup2(birth.stdout_fd, 1)
    os.dup2(birth.stderr_fd, 2)
    for fd in (birth.stdout_fd, birth.stderr_fd, *birth.foreign_fds):
        os.close(fd)


def _settle_in(spec: WorkerSpec, thread_env: Mapping[str, str]) -> None:
    set_process_title(f"actorflow-worker {spec.worker_id}")
    if thread_env or spec.env:
        os.environ.update({**thread_env, **spec.env})
    if spec.working_dir is not None:
        os.chdir(spec.working_dir)
        sys.path.insert(0, spec.working_dir)
    known = set(sys.path)
    sys.path.extend(entry for entry in map(text_to_path, spec.sys_path) if entry not in known)
    # `random` reseeds itself after a fork. NumPy does not: every worker would draw the same numbers.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    atexit._clear()  # What the zygote registered is not ours to run.
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def _exit_code(request: SystemExit) -> int:
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return request.code & 0xFF
    sys.stderr.write(f"{request.code}\n")
    return EXIT_FAILED


def _leave(code: int) -> int:
    """End as Python does, but do not take the interpreter apart: that would copy every page it touches."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        return code or EXIT_FAILED
    return code
