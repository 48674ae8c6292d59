"""What the workers of the zygote's tests run."""

import atexit
import gc
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from actorflow._core.io.ports import WorkerSpec


def say(facts: Any) -> None:
    print(json.dumps(facts))


def facts(spec: WorkerSpec) -> None:
    """Everything a worker may ask about itself."""
    say(
        {
            "spec": [spec.worker_id, spec.job_id, spec.node_address, spec.address],
            "pid": os.getpid(),
            "session": os.getsid(0),
            "parent": os.getppid(),
            "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
            "sigchld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "stdin": os.readlink("/proc/self/fd/0"),
            "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
            "env": dict(os.environ),
            "cwd": os.getcwd(),
            "path": sys.path,
            "random": random.random(),
            "numpy": sys.modules["numpy"].random.random() if "numpy" in sys.modules else None,
            "comm": Path("/proc/self/comm").read_text().strip(),
            "cmdline": Path("/proc/self/cmdline").read_text().rstrip("\0"),
            "threads": len(os.listdir("/proc/self/task")),
            "gc": gc.isenabled(),
        }
    )


def use_memory(spec: WorkerSpec) -> None:
    block = b"x" * 80_000_000
    say(len(block))


def fail(spec: WorkerSpec) -> None:
    raise ZeroDivisionError("a bug")


def leave(spec: WorkerSpec) -> None:
    """End with the SystemExit that the environment describes."""
    sys.exit(json.loads(spec.env["LEAVE"]))


def tidy(spec: WorkerSpec) -> None:
    """A thread and an exit handler that still have something to say."""
    atexit.register(lambda: sys.stdout.write("exit handler\n"))
    threading.Thread(target=lambda: sys.stdout.write("thread\n")).start()


def chatter(spec: WorkerSpec) -> None:
    sys.stdout.write("x" * 1_000_000)
    sys.stdout.write("end")


def odd_text(spec: WorkerSpec) -> None:
    print("grüße \udcff")


def wait(spec: WorkerSpec) -> None:
    print("READY")
    signal.pause()


def leave_a_child(spec: WorkerSpec) -> None:
    """End while a child process still holds our output; `DAEMON`: in a session of its own."""
    child = subprocess.Popen(["sleep", "1000"], start_new_session="DAEMON" in spec.env)
    say(child.pid)


def fd_limit(spec: WorkerSpec) -> None:
    say(resource.getrlimit(resource.RLIMIT_NOFILE))
