"""Wrong use where no cluster runs: before, after, and instead of one."""

from __future__ import annotations

import pytest

import actorflow as af
from tests.integration.programs import Programs

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
    for given in (*wrong, {"cancel_grace": "5"}):
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
