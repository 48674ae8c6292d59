"""The command line before it does anything."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from actorflow import _nodes
from actorflow.cli import drain, main, status, which


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("start --bogus", "actorflow start: error: unrecognized arguments: --bogus; one of the arguments --head --address is required"),
        ("start --adress=a:1 --port 1", "unrecognized arguments: --adress=a:1; one of the arguments --head --address is required"),
        ("start --num-cpu 1", "actorflow start: error: one of the arguments --head --address is required"),
        ("start", "actorflow start: error: one of the arguments --head --address is required"),
        ("start --head --bogus", "actorflow: error: unrecognized arguments: --bogus"),
        ("drain --bogus", "actorflow drain: error: unrecognized arguments: --bogus; the following arguments are required: NODE"),
    ],
)
def test_an_unknown_option_is_named(given: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(text)


@pytest.mark.parametrize("arguments", ["--help", "start --help"])
def test_a_reader_that_wants_no_more_is_no_error(arguments: str) -> None:
    """As `head -1` is one: it closes the pipe before all is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-m", "actorflow.cli", *arguments.split()], stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("actorflow._nodes.stop", interrupted)
    assert main(["stop"]) == 130
    assert capsys.readouterr() == ("", "actorflow stop: interrupted\n")


def test_ctrl_c_while_a_node_drains_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def under_way(options: object, address: str, begun: list[str]) -> str:
        begun.append("1f2e3d")
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
        return "never"

    monkeypatch.setattr(drain, "_drain", under_way)
    assert main(["drain", "1f", "--address", "10.0.0.1:1"]) == 130
    said = "actorflow drain: interrupted; node 1f2e3d goes on draining; `actorflow status` shows it until it has left\n"
    assert capsys.readouterr() == ("", said)


def test_what_is_listed_is_bounded_and_says_how_much_more_there_is() -> None:
    rows = list(range(25))
    lines = status._listed(rows, str, 20, "list_actors")
    assert lines[:2] == ["  0", "  1"]
    assert lines[20:] == ["  ... and 5 more: af.state.list_actors() has all"]
    assert status._listed(rows[:20], str, 20, "list_actors") == [f"  {number}" for number in range(20)]


def test_a_program_s_own_cluster_is_not_in_the_way_of_one_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """WC-2: what ends with its program has no node that could leave."""
    found = [_nodes.Cluster("/tmp/actorflow-0/a1", started=False), _nodes.Cluster("127.0.0.1:6380", started=True)]
    monkeypatch.setattr("actorflow._nodes.clusters", lambda: found)
    assert which.the_one("auto") == "127.0.0.1:6380"
    assert which.the_one("10.0.0.1:1") == "10.0.0.1:1"
    del found[1]
    assert which.the_one("auto") == "auto", "which says what is there"
