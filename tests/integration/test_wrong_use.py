"""Wrong use where no cluster runs: before, after, and instead of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from tests.integration.programs import ROOT, Programs

pytestmark = pytest.mark.local_only("there is no cluster")


def test_options_are_checked_where_they_are_written() -> None:
    with pytest.raises(af.OptionError, match="num_cpus"):

        @af.remote(num_cpu=1)
        def unknown() -> None: ...

    with pytest.raises(af.OptionError, match="negative"):
        af.remote(num_cpus=-1)(lambda: None)
    with pytest.raises(af.OptionTypeError, match="num_gpus"):
        af.remote(num_gpus="two")(lambda: None)
    wrong = ({"num_cpus": -1}, {"mode": "threads"}, {"resources": {"CPU": 1}}, {"memory": "a lot"}, {"cancel_grace": -1})
    for given in (*wrong, {"cancel_grace": "5"}, {"log_to_driver": "no"}, {"inline": 1}, {"namespace": ""}, {"namespace": " "}):
        with pytest.raises(af.OptionError, match=next(iter(given))):
            af.init(**given)  # type: ignore[arg-type]
    assert not af.is_initialized()


@pytest.mark.parametrize("given", [{"priority": 2**70}, {"num_returns": 2**40}, {"max_retries": 2**64}])
def test_numbers_that_no_message_can_carry_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(af.OptionError, match=f"{next(iter(given))}=.* too large"):
        af.remote(**given)(lambda: None)  # type: ignore[call-overload]


def test_text_that_no_message_can_carry_is_refused() -> None:
    class Idle(af.Actor):
        def ping(self) -> None: ...

    for option in ("name", "namespace"):
        with pytest.raises(af.OptionError, match=f"{option}=.* UTF-8"):
            Idle.options(**{option: "a\udcff"})  # type: ignore[attr-defined]


def test_use_before_init_says_what_to_do() -> None:
    @af.remote
    def nothing() -> None: ...

    class Idle(af.Actor):
        def ping(self) -> None: ...

    def put() -> None:
        coroutine = af.put(1)
        try:
            af.sync(coroutine)
        finally:
            coroutine.close()

    for use in (nothing, nothing.remote, Idle.remote, put, af.get_runtime_context):
        with pytest.raises(af.NotInitializedError, match=r"af\.(init|run)"):
            use()


def test_use_after_shutdown_says_what_to_do(programs: Programs) -> None:
    program = programs.run(
        """
        @af.remote
        def one():
            return 1

        class Counter(af.Actor):
            def add(self):
                return 1

        async def main():
            async with af.init(num_cpus=1):
                ref, counter = one.remote(), await Counter.remote()
                pending = asyncio.ensure_future(af.remote(time.sleep)(60))
                await ref
                await asyncio.sleep(0.05)
            for use in (lambda: one(), lambda: counter.add(), lambda: counter.add.remote(), lambda: pending, lambda: af.get([ref])):
                try:
                    result = use()
                    if result is pending or asyncio.iscoroutine(result):
                        result = await result
                    print("no error", result)
                except af.ActorflowError as error:
                    print(type(error).__name__)

        asyncio.run(main())
        """,
    )
    lines = program.out().split("\n")
    assert lines[0] == "NotInitializedError", program.told()
    assert set(lines[1:4]) <= {"ClusterConnectionError", "NotInitializedError"}, program.told()
    assert "no error" not in "".join(lines[1:4]), program.told()


def test_a_read_only_temporary_directory_is_named(programs: Programs) -> None:
    program = programs.start("af.run(asyncio.sleep(0))", env={"ACTORFLOW_TMPDIR": "/proc/nowhere"})
    assert program.ends() == 1
    assert "ClusterStartError" in program.err()
    assert "/proc/nowhere" in program.err()
    assert "ACTORFLOW_TMPDIR" in program.err()


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"namespace": 5}, af.OptionTypeError, "namespace=5.*text is needed, not int"),
        ({"namespace": "caf\udce9"}, af.OptionError, "namespace.*is no text that UTF-8 can carry"),
        ({"address": 5}, af.OptionTypeError, "address=5.*text is needed, not int"),
        ({"address": "unix:/caf\udce9"}, af.OptionError, "address.*is no text that UTF-8 can carry"),
        ({"address": "a\0b"}, af.OptionError, "NUL"),
        ({"resources": [1]}, af.OptionTypeError, "A dict of amounts is right"),
        ({"resources": {"caf\udce9": 1}}, af.OptionError, "resources.*is no text that UTF-8 can carry"),
        ({"num_cpus": float("nan")}, af.OptionError, "num_cpus=nan.*a finite number is needed"),
        ({"num_gpus": float("inf")}, af.OptionError, "num_gpus=inf.*a finite number is needed"),
        ({"object_store_memory": 0}, af.OptionError, "object_store_memory=0.*leave it out"),
        ({"object_store_memory": 1}, af.OptionError, "object_store_memory=1.*it needs 1 MiB or more"),
        ({"object_store_memory": "100TiB"}, af.OptionError, "object_store_memory.*this machine has .* in all"),
        ({"address": "unix:/nowhere/node.sock"}, af.ClusterConnectionError, "no actorflow node.*nowhere.*Start one with"),
        ({"address": "nowhere"}, af.ClusterConnectionError, "address='nowhere': expected .*HOST:PORT, or the directory of a session"),
    ],
)
def test_init_says_what_is_wrong_and_what_to_do(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        af.init(**given)
    assert not af.is_initialized()


def test_a_program_may_live_in_a_directory_whose_name_cannot_be_decoded(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"caf\xe9")
    directory.mkdir()
    (directory / "beside.py").write_text("def seven():\n    return 7\n")
    (directory / "program.py").write_text(
        "import actorflow as af, beside\n"
        "async def main():\n"
        "    print(await af.remote(beside.seven)())\n"
        "af.run(main, num_cpus=1)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, str(directory / "program.py")], capture_output=True, env=environ, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"7\n"), ran.stderr.decode(errors="replace")
