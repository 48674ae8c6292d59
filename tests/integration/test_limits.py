"""Limits that a shell or a container sets for processes: the object store does not fit, and everybody is told which limit it is."""

from __future__ import annotations

import pytest

from tests.integration.programs import Programs

pytestmark = pytest.mark.local_only("the limits are those of this host's processes")

SAYS = """
        import resource
        resource.setrlimit(resource.RLIMIT_{name}, ({limit}, {limit}))

        async def says(what, call):
            try:
                result = await asyncio.wait_for(call, 20)
                print(what, "gave", result if type(result) is int else type(result).__name__)
            except Exception as error:
                print(what, type(error).__name__, error)
"""
TOO_LARGE = "the object store of 3 GiB cannot be mapped: Cannot allocate memory (the limit is 1.9 GiB of addresses: ulimit -v)"
NEXT = "start with a smaller object_store_memory="


def test_what_needs_a_store_that_cannot_be_mapped_fails_and_the_rest_goes_on(programs: Programs) -> None:
    program = programs.run(
        SAYS.format(name="AS", limit=2_000_000 * 1024)
        + """
        @af.remote
        def small():
            return 1

        @af.remote
        def large():
            return bytes(1_000_000)

        @af.remote(num_returns=2)
        def both():
            return 1, bytes(1_000_000)

        @af.remote
        def size(data):
            return len(data)

        @af.remote
        def stream():
            yield bytes(1_000_000)

        class Keeper(af.Actor):
            def large(self):
                return bytes(1_000_000)

        async def first(items):
            async for item in items:
                return item

        async def main():
            await says("before", small())
            await says("result", large())
            await says("again", large())
            await says("results", both())
            await says("item", first(stream()))
            await says("method", Keeper.remote().large())
            await says("argument", size(bytes(1_000_000)))
            await says("put", af.put(bytes(1_000_000)))
            await says("after", small())
            await asyncio.sleep(0.2)
            print(await af.state.list_objects())

        af.run(main, num_cpus=2, object_store_memory="3GiB")
        """,
    )
    lines = program.out().splitlines()
    assert lines[0] == "before gave 1"
    for line, what in zip(lines[1:8], ("result", "again", "results", "item", "method", "argument", "put"), strict=True):
        assert line.startswith(f"{what} ObjectStoreFullError "), program.told()
        assert TOO_LARGE in line, program.told()
        assert NEXT in line, program.told()
    assert lines[8] == "after gave 1"
    assert "Traceback" not in program.told()


def test_a_store_that_cannot_be_made_is_a_start_error_in_words(programs: Programs) -> None:
    program = programs.run(
        SAYS.format(name="FSIZE", limit=64 << 20)
        + """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for mode in ("processes", "in_process"):
            try:
                with af.init(num_cpus=1, object_store_memory="256MiB", mode=mode):
                    print("started")
            except af.ClusterStartError as error:
                print("refused", str(error).replace("\\n", " "))
        """,
    )
    lines = program.out().splitlines()
    assert len(lines) == 2, program.told()
    for line in lines:
        assert line.startswith("refused "), program.told()
        assert "the object store of 256 MiB cannot be made: File too large (the limit is 64 MiB of a file: ulimit -f)" in line
        assert line.endswith(NEXT), program.told()
        assert "Traceback" not in line
