"""Where objects are spilled: what the user may name, and what is done about directories of nodes that are dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.io.spill_directory import LOCK, SWEEP_AGE_S, DirectoryPlace, NamedDirectoryPlace
from actorflow._core.io.spill_remote import RemotePlace
from actorflow._core.io.spill_target import check_target, place_of

OURS = f"actorflow-{os.geteuid()}-"


def on() -> None:
    """Nothing ends."""


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (3, OptionTypeError, "a directory or a URI is needed"),
        (b"/tmp", OptionTypeError, "a directory or a URI is needed"),
        ("", OptionError, "leave it out"),
        ("ftp://host/path", OptionError, "URIs that begin with s3://"),
        ("s3://key:hunter2@bucket/path", OptionError, "AWS_ACCESS_KEY_ID"),
        ("/dev/null/spill", OptionError, "Not a directory (/dev/null/spill): name a directory that exists"),
        ("caf\udce9", OptionError, "UTF-8"),
    ],
)
def test_what_cannot_be_is_said_where_it_was_written(value: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        check_target("af.init", value)
    assert words in str(caught.value)
    assert "af.init(object_spilling_directory" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_directories_are_made_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_target("af.init", None) == ""
    assert check_target("af.init", "a/b") == f"{tmp_path}/a/b"
    assert check_target("af.init", Path("a")) == f"{tmp_path}/a"
    assert check_target("af.init", f"file://{tmp_path}/c") == f"{tmp_path}/c"
    assert sorted(os.listdir(tmp_path)) == ["a", "c"]
    assert check_target("af.init", "s3://bucket/path?region=eu-west-1") == "s3://bucket/path?region=eu-west-1"


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow._core.io.spill_target.find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install"):
        check_target("af.init", "gs://bucket/path")


def test_the_place_is_that_of_the_target(tmp_path: Path) -> None:
    session = place_of("", "/session/spill", "1234")
    assert type(session) is DirectoryPlace
    assert session.path == "/session/spill"
    named = place_of(str(tmp_path), "/session/spill", "1234")
    assert type(named) is NamedDirectoryPlace
    assert named.path == f"{tmp_path}/{OURS}1234"
    remote = place_of("s3://user@bucket/path/?region=x", "/session/spill", "1234")
    assert type(remote) is RemotePlace
    assert remote.shown(255) == "s3://bucket/path/actorflow-1234/ff"


def age(path: Path) -> None:
    long_ago = time.time() - 2 * SWEEP_AGE_S
    os.utime(path, (long_ago, long_ago))


HOLD = """
import sys
from actorflow._core.io.spill_directory import NamedDirectoryPlace
place = NamedDirectoryPlace(sys.argv[1], sys.argv[2])
place.write(1, memoryview(b"x"), lambda: None)
print("ready", flush=True)
sys.stdin.read()
"""


def holder(directory: Path, session_id: str) -> subprocess.Popen[str]:
    """A node that lives until its input is closed, or it is killed."""
    command = [sys.executable, "-c", HOLD, str(directory), session_id]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_ds_1_what_a_dead_node_has_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    with holder(tmp_path, "killed") as killed, holder(tmp_path, "alive") as alive:
        killed.kill()
        killed.wait()
        others = [tmp_path / "mine", tmp_path / f"actorflow-{os.geteuid() + 1}-other"]
        for path in others:
            path.mkdir()
        for path in tmp_path.iterdir():
            age(path)
        with holder(tmp_path, "young") as young:
            young.kill()
            young.wait()
            place = NamedDirectoryPlace(str(tmp_path), "new")
            place.write(7, memoryview(b"data"), on)
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {f"{OURS}alive", f"{OURS}young", f"{OURS}new", *(path.name for path in others)}
            assert sorted(os.listdir(place.path)) == ["7", LOCK]
            assert os.stat(place.path).st_mode & 0o777 == 0o700
            place.clear()
            assert not os.path.exists(place.path)
        alive.kill()


def test_a_disk_that_is_almost_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow._core.io.spill_directory.DISK_FREE_SHARE_MIN", 1.0)
    place = NamedDirectoryPlace(str(tmp_path), "full")
    with pytest.raises(OSError, match="are left alone"):
        place.write(1, memoryview(b"data"), on)
    assert os.listdir(place.path) == [LOCK]
    place.clear()


def test_rr_1_a_name_goes_when_the_last_reader_lets_go(tmp_path: Path) -> None:
    place = RemotePlace(f"file://{tmp_path}", "s")
    place.write(1, memoryview(b"0123456789"), on)
    first, second = place.open(1), place.open(1)
    place.delete(1)
    assert first.read(2, 3) == b"234"
    first.close()
    assert second.read(0, 2) == b"01"
    with pytest.raises(OSError, match="ends after 10 bytes"):
        second.read(8, 4)
    second.close()
    give_up_at = time.monotonic() + 10
    while os.listdir(tmp_path / "actorflow-s"):
        assert time.monotonic() < give_up_at
        time.sleep(0.001)
    place.clear()
    assert os.listdir(tmp_path) == []


def test_rr_2_a_store_that_does_not_answer_keeps_no_node_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    place = RemotePlace(f"file://{tmp_path}", "s")
    place.clear()  # Nothing was written: nothing is asked.
    place.write(1, memoryview(b"x"), on)
    answers = threading.Event()
    monkeypatch.setattr(place, "_clear", answers.wait)
    monkeypatch.setattr("actorflow._core.io.spill_remote.CLEAR_S", 0.05)
    place.clear()
    answers.set()
    assert "has to be deleted by somebody else" in caplog.text
