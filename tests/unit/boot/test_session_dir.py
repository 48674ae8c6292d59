"""The session directory: who may be in it, who finds it, and when it goes."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot import session_dir as module
from actorflow._core.boot.session_dir import (
    SessionDir,
    create_session_dir,
    find_current,
    sweep_stale,
    temp_dirs,
)
from actorflow._core.io.sockets import unix_path

OLD = 3_600.0


@pytest.fixture(autouse=True)
def memory(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /dev/shm is elsewhere."""
    place = short_dir / "memory"
    place.mkdir()
    monkeypatch.setattr(module, "MEMORY_DIR", str(place))
    return place


def create(short_dir: Path, session_id: str = "a1b2c3d4e5f6") -> SessionDir:
    return create_session_dir(session_id, [str(short_dir)])


def root(short_dir: Path) -> Path:
    return short_dir / f"actorflow-{os.geteuid()}"


def place(session: SessionDir) -> Path:
    return Path(session.path)


def make_old(path: Path) -> None:
    long_ago = time.time() - OLD
    os.utime(path, (long_ago, long_ago))


@contextmanager
def locked_elsewhere(session: SessionDir) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the lock, as a node does."""
    code = (
        "import sys; from actorflow._core.boot.session_dir import SessionDir\n"
        "session = SessionDir(sys.argv[1]); session.hold_lock(); session.publish('unix:/there')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, session.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


# -- what is made


def test_a_new_directory_is_for_this_user_only(short_dir: Path) -> None:
    session = create(short_dir)
    assert place(session) == root(short_dir) / "a1b2c3d4e5f6"
    assert session.session_id == "a1b2c3d4e5f6"
    for path in (place(session), place(session).parent, Path(session.logs), place(session) / "w"):
        assert path.is_dir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_umask_does_not_open_it(short_dir: Path) -> None:
    before = os.umask(0)
    try:
        session = create(short_dir)
    finally:
        os.umask(before)
    assert stat.S_IMODE(place(session).stat().st_mode) == 0o700


def test_its_addresses_can_be_bound(short_dir: Path) -> None:
    session = create(short_dir)
    assert session.node_address == f"unix:{session.path}/node.sock"
    assert session.worker_address("0123456789ab") == f"unix:{session.path}/w/0123456789ab.sock"
    assert session.arena_path == f"{session.path}/arena.sock"
    assert unix_path(session.worker_address("0123456789ab"))


def test_the_same_session_twice_is_an_error(short_dir: Path) -> None:
    create(short_dir)
    with pytest.raises(ClusterStartError):
        create(short_dir)


# -- where the sockets of workers are


def test_sockets_of_workers_are_in_memory_and_go_with_the_session(short_dir: Path, memory: Path) -> None:
    session = create(short_dir)
    (place(session) / "w" / "0123456789ab.sock").touch()
    assert {path.name for path in memory.glob("*/*")} == {"0123456789ab.sock", "session"}
    assert [os.readlink(path) for path in memory.glob("*/session")] == [session.path]
    session.remove()
    assert not place(session).exists()
    assert list(memory.iterdir()) == []


def test_sockets_of_a_dead_session_are_swept(short_dir: Path, memory: Path) -> None:
    session = create(short_dir)
    (place(session) / "w" / "0123456789ab.sock").touch()
    make_old(place(session))
    assert sweep_stale([str(short_dir)]) == [session.path]
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("why", ["missing", "taken"])
def test_sockets_are_with_the_rest_where_there_is_no_place_in_memory(short_dir: Path, memory: Path, why: str) -> None:
    if why == "missing":
        memory.rmdir()
    else:
        (memory / f"actorflow-{os.geteuid()}-a1b2c3d4e5f6").mkdir()  # By somebody who knew what we would be called.
    sockets = place(create(short_dir)) / "w"
    assert sockets.is_dir() and not sockets.is_symlink()
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


# -- where it is


def test_the_users_choice_comes_first() -> None:
    assert temp_dirs({"ACTORFLOW_TMPDIR": "/choice", "TMPDIR": "/other"}) == ("/choice",)
    assert temp_dirs({"TMPDIR": "/other"}) == ("/other", "/tmp")
    assert temp_dirs({"TMPDIR": "/tmp/"}) == ("/tmp",)
    assert temp_dirs({"ACTORFLOW_TMPDIR": "relative"}) == (os.path.abspath("relative"),)


def test_a_name_too_long_for_sockets_is_passed_over(short_dir: Path) -> None:
    long = short_dir / ("d" * 80)
    long.mkdir()
    session = create_session_dir("a1", [str(long), str(short_dir)])
    assert place(session).parent == root(short_dir)
    assert list(long.iterdir()) == []


def test_a_choice_too_long_for_sockets_is_an_error_with_the_way_out() -> None:
    long = "/" + "d" * 80
    with pytest.raises(ClusterStartError, match="longer than the 107 bytes.*Set ACTORFLOW_TMPDIR") as caught:
        create_session_dir("a1", [long])
    assert long in str(caught.value)


# -- directories that will not do


def test_a_directory_that_does_not_exist(short_dir: Path) -> None:
    with pytest.raises(ClusterStartError, match="not a directory that exists.*TMPDIR or ACTORFLOW_TMPDIR") as caught:
        create_session_dir("a1", [str(short_dir / "nowhere")])
    assert str(short_dir / "nowhere") in str(caught.value)


def test_a_directory_that_is_read_only() -> None:
    with pytest.raises(ClusterStartError, match="the temporary directory /sys cannot be written to.*TMPDIR"):
        create_session_dir("a1", ["/sys"])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "is full: No space left on device"),
        (errno.EDQUOT, "is full: Disk quota exceeded"),
        (errno.EROFS, "cannot be written to: Read-only file system"),
        (errno.EACCES, "cannot be written to: Permission denied"),
    ],
)
def test_each_failure_in_words(code: int, words: str) -> None:
    with pytest.raises(ClusterStartError, match=f"^the temporary directory /here {words}. Set TMPDIR or"):
        with module._explained("/here"):
            raise OSError(code, os.strerror(code))


def test_a_link_in_its_place_is_refused(short_dir: Path) -> None:
    (short_dir / "elsewhere").mkdir()
    root(short_dir).symlink_to(short_dir / "elsewhere")
    with pytest.raises(ClusterStartError, match="symbolic link.*Remove it"):
        create(short_dir)


def test_a_directory_that_others_may_enter_is_refused(short_dir: Path) -> None:
    root(short_dir).mkdir()
    root(short_dir).chmod(0o755)
    with pytest.raises(ClusterStartError, match=r"mode 0755\). Chmod 700|mode 0755\). chmod 700"):
        create(short_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(short_dir: Path) -> None:
    root(short_dir).mkdir(mode=0o700)
    os.chown(root(short_dir), 65_534, 65_534)
    with pytest.raises(ClusterStartError, match="belongs to user 65534, and we are user 0"):
        create(short_dir)


# -- the lock


def test_a_lock_is_held_once(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.02)
    session = create(short_dir)
    session.hold_lock()
    with pytest.raises(ClusterStartError, match="another node process holds its lock"):
        SessionDir(session.path).hold_lock()
    session.remove()
    assert not place(session).exists()


def test_the_lock_goes_with_its_process(short_dir: Path) -> None:
    session = create(short_dir)
    with locked_elsewhere(session):
        pass
    session.hold_lock()
    session.remove()


def test_what_stays_to_be_read_keeps_nothing_in_memory(short_dir: Path) -> None:
    session = create_session_dir("0123456789ab", [str(short_dir)])
    in_memory = os.readlink(f"{session.path}/w")
    Path(in_memory, "worker.sock").touch()
    session.remove_sockets()
    assert not os.path.lexists(in_memory)
    assert os.path.isdir(session.logs)
    assert sweep_stale([str(short_dir)], age_s=0) == [session.path]
    assert not os.path.lexists(session.path)


def test_the_lock_of_a_removed_session_is_no_lock(short_dir: Path) -> None:
    session = create(short_dir)
    session.remove()
    session.remove()
    with pytest.raises(FileNotFoundError):
        session.hold_lock()


# -- who is there


def test_the_newest_cluster_that_lives_is_found(short_dir: Path) -> None:
    directories = [str(short_dir)]
    assert find_current(directories) is None
    old, new, dead, silent = (create(short_dir, name) for name in ("old", "new", "dead", "silent"))
    for session in (old, dead, new):
        session.hold_lock()
        session.publish(f"unix:/{session.session_id}")
    silent.hold_lock()  # Not published: it cannot be reached yet.
    os.close(dead._lock_fd)
    dead._lock_fd = -1
    found = find_current(directories)
    assert found is not None
    assert (found.session_id, found.address, found.pid) == ("new", "unix:/new", os.getpid())
    assert found.path == new.path
    assert abs(found.created - time.time()) < 60
    for session in (old, new, dead, silent):
        session.remove()
    assert find_current(directories) is None


def test_a_cluster_of_another_process_is_found_until_it_dies(short_dir: Path) -> None:
    session = create(short_dir)
    with locked_elsewhere(session) as process:
        found = find_current([str(short_dir)])
        assert found is not None
        assert (found.pid, found.address) == (process.pid, "unix:/there")
    assert find_current([str(short_dir)]) is None


def test_looking_does_not_disturb_a_node_that_takes_its_lock(short_dir: Path) -> None:
    session = create(short_dir)
    fd = module._try_lock(f"{session.path}/lock")  # Somebody who looks, at the worst moment.
    assert fd is not None
    looking = threading.Timer(0.02, os.close, [fd])
    looking.start()
    session.hold_lock()
    looking.join()
    session.remove()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"pid": "x", "address": "a", "created": 1})])
def test_a_session_file_that_makes_no_sense_is_passed_over(short_dir: Path, text: str) -> None:
    session = create(short_dir)
    session.hold_lock()
    (place(session) / "session.json").write_text(text)
    assert find_current([str(short_dir)]) is None
    session.remove()


# -- sweeping


def test_dead_sessions_are_swept_and_no_others(short_dir: Path) -> None:
    dead, young, living, lockless = (create(short_dir, name) for name in ("dead", "young", "living", "lockless"))
    (place(dead) / "node.sock").touch()
    (place(dead) / "logs" / "worker.log").write_text("last words")
    (place(lockless) / "lock").unlink()
    (root(short_dir) / "a file").write_text("not a session")
    for session in (dead, living, lockless):
        make_old(place(session))
    with locked_elsewhere(living):
        make_old(place(living))
        assert sorted(sweep_stale([str(short_dir)])) == [dead.path, lockless.path]
        assert place(living).exists()
    assert place(young).exists()
    assert not place(dead).exists()


def test_a_young_one_is_swept_once_it_was_published_and_not_before(short_dir: Path) -> None:
    """It had its lock when it was published, so it is dead: no node of its is about to start."""
    dead, starting, living = (create(short_dir, name) for name in ("dead", "starting", "living"))
    dead.publish("unix:/nowhere")
    living.publish("unix:/somewhere")
    with locked_elsewhere(living):
        assert sweep_stale([str(short_dir)]) == []
        assert sweep_stale([str(short_dir)], published=True) == [dead.path]
    assert place(starting).exists()
    assert place(living).exists()


@pytest.mark.parametrize(
    ("step", "made"), [("lock", set()), ("logs", {"lock"}), ("done", {"lock", "logs", "w"})], ids=["lock", "logs", "done"]
)
def test_what_a_process_left_that_was_killed_while_it_made_its_directory_is_swept(
    short_dir: Path, memory: Path, step: str, made: set[str]
) -> None:
    """Before the lock was written, before the logs had a place, and before there was a node."""
    code = (
        "import os, signal, sys; from actorflow._core.boot import session_dir\n"
        "step, directory, session_dir.MEMORY_DIR = sys.argv[1:]\n"
        "def fatal_at(original, path_at):\n"
        "    def call(*args, **kwargs):\n"
        "        if args[path_at].endswith('/' + step):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return original(*args, **kwargs)\n"
        "    return call\n"
        "os.mkdir, session_dir._write = fatal_at(os.mkdir, 0), fatal_at(session_dir._write, 0)\n"
        "session_dir.create_session_dir('a1b2c3', [directory])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, step, str(short_dir), str(memory)], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = root(short_dir).iterdir()
    assert {path.name for path in left.iterdir()} == made
    assert sweep_stale([str(short_dir)]) == [], "it may be one whose node is about to start"
    make_old(left)
    assert sweep_stale([str(short_dir)]) == [str(left)]
    assert list(root(short_dir).iterdir()) == list(memory.iterdir()) == []


def test_nothing_to_sweep(short_dir: Path) -> None:
    assert sweep_stale([str(short_dir), str(short_dir / "nowhere")]) == []


def test_a_root_that_is_not_ours_is_not_swept(short_dir: Path) -> None:
    elsewhere = short_dir / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    make_old(elsewhere / "precious")
    root(short_dir).symlink_to(elsewhere)
    assert sweep_stale([str(short_dir)]) == []
    assert (elsewhere / "precious").exists()


def test_a_link_inside_is_not_followed(short_dir: Path) -> None:
    create(short_dir)
    precious = short_dir / "precious"
    precious.mkdir()
    (precious / "data").write_text("keep")
    (root(short_dir) / "linked").symlink_to(precious)
    make_old(precious)
    sweep_stale([str(short_dir)], age_s=0.0)
    assert (precious / "data").read_text() == "keep"
