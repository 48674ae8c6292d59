"""A disk that is soon full: a file system in memory with a bound, for tests of what is written to disks. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHUNK_BYTES = 1 << 16


@cache
def problem() -> str:
    """Why this machine cannot have such a disk; empty when it can."""
    if os.geteuid():
        return "mounting a file system needs root"
    done = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False)
    return f"no file system can be mounted here: {done.stderr.strip()}" if done.returncode else ""


needs_disk = pytest.mark.skipif(bool(problem()), reason=problem() or "there can be small disks")


@contextlib.contextmanager
def small_disk(path: Path, *, size: str, files: int = 0) -> Iterator[Path]:
    """Mount an empty disk of this size at `path`. `files`: how many files, and directories, it may have; 0 for any number."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0700" + (f",nr_inodes={files}" if files else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(path: Path, leave: int = 0) -> Path:
    """Take all that is free there but `leave` bytes, as somebody else's file would; return the file."""
    file = path / "of somebody else"
    disk = os.statvfs(path)
    with open(file, "wb", buffering=0) as out, contextlib.suppress(OSError):
        left = disk.f_bavail * disk.f_frsize - leave
        while left > 0:
            left -= out.write(bytes(min(left, CHUNK_BYTES)))
        while not leave:
            out.write(b"x")
    return file
