"""What workers print reaches the driver, and a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.leaks import until
from tests.integration.programs import Programs

pytestmark = pytest.mark.local_only("programs with local clusters of their own, whose output is looked at")


def test_worker_output_reaches_the_driver_with_a_prefix(programs: Programs) -> None:
    program = programs.start(
        """
        @af.remote
        def talk(n):
            print("task", n)
            sys.stderr.write(f"warn {n}\\n")
            return os.getpid()

        class Talker(af.Actor):
            def say(self):
                print("actor speaks")

        async def main():
            print(f"worker {await talk(1)}")  # In one piece, which a line of a worker does not tear.
            await Talker.remote().say()
            print("said", flush=True)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)

        af.run(main, num_cpus=2)
        """
    )
    program.says("said")
    assert until(lambda: "actor speaks" in program.out() and "warn 1" in program.err()), program.told()
    Path(program._out.parent, "go").touch()
    assert program.ends() == 0
    [pid] = re.findall(r"worker (\d+)", program.out())
    assert f"(talk pid={pid}) task 1\n" in program.out()
    assert f"(talk pid={pid}) warn 1\n" in program.err()
    assert re.search(r"\(Talker pid=\d+\) actor speaks\n", program.out())


def test_worker_output_does_not_tear_a_line_of_the_program(programs: Programs) -> None:
    program = programs.run(
        """
        # As on a terminal, where a line is held back until it is complete.
        sys.stdout.reconfigure(line_buffering=True)

        @af.remote
        def talk():
            print("between", flush=True)

        async def main():
            print("the beginning", end="")
            await talk()
            while "between" not in open(sys.argv[1]).read():
                await asyncio.sleep(0.01)
            print(" and the end")

        af.run(main, num_cpus=1)
        """,
        "program0.out",
        env={"PYTHONUNBUFFERED": ""},
    )
    [ours, own] = program.out().splitlines()
    assert re.fullmatch(r"\(talk pid=\d+\) between", ours)
    assert own == "the beginning and the end"


def test_log_to_driver_false_keeps_it_out_and_log_files_have_it_all(programs: Programs, home: Path) -> None:
    program = programs.start(
        """
        @af.remote
        def talk(n):
            for i in range(n):
                print("line", i)

        async def main():
            await talk(3000)
            print("said", flush=True)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)

        af.run(main, num_cpus=1, log_to_driver=False)
        """
    )
    program.says("said")

    def logged() -> bool:
        texts = [path.read_text() for path in home.glob("actorflow-*/*/logs/*")]
        return any("line 0\n" in text and "line 2999\n" in text for text in texts)

    assert until(logged)
    Path(program._out.parent, "go").touch()
    assert program.ends() == 0
    assert "line" not in program.out()


def test_the_last_lines_are_printed_before_a_program_ends(programs: Programs) -> None:
    program = programs.run(
        """
        @af.remote
        def talk():
            print("the very last line")

        async def main():
            await talk()

        af.run(main, num_cpus=1)
        """
    )
    assert "the very last line" in program.out(), program.told()
