"""The threads of an actor: order, bounds, and that no call is left lying (CT-1 to CT-3).

A call is here a function, and to run it is to call it: what it returns follows it, as the next call of a mailbox does.
"""

from __future__ import annotations

import collections
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actorflow._core.worker.call_threads import CROWD_S, QUICK_S, SAMPLE, SAMPLE_MAX, CallThreads, Pace
from tests.integration.leaks import until

PATIENCE_S = 20.0
"""How long a test waits for what must happen. Only a failure takes so long."""

Call = Callable[[], Any]
Make = Callable[[int], CallThreads[Call]]


def named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make threads with a limit, at most once in a test; they must be gone when they were closed."""
    made: list[CallThreads[Call]] = []
    name = request.node.name

    def make(limit: int) -> CallThreads[Call]:
        made.append(CallThreads(limit, lambda call: call(), name))
        return made[-1]

    yield make
    for threads in made:
        threads.close()
    assert until(lambda: not named(name)), named(name)


class Blocking:
    """Calls that say that they have started, and then wait until the test lets them go."""

    def __init__(self, count: int) -> None:
        self.started: list[int] = []
        self._gates = [threading.Event() for _ in range(count)]

    def call(self, number: int) -> Call:
        def run() -> None:
            self.started.append(number)
            assert self._gates[number].wait(PATIENCE_S)

        return run

    def have_started(self, count: int) -> bool:
        return until(lambda: len(self.started) >= count, PATIENCE_S)

    def let_go(self, number: int) -> None:
        self._gates[number].set()


# -- order, and the limit


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_ct_1_calls_start_in_the_order_in_which_they_were_put_and_as_many_as_may(make: Make, limit: int) -> None:
    threads, count = make(limit), 12
    blocking = Blocking(count)
    for number in range(count):
        threads.put(blocking.call(number))
    for ended in range(count):
        at_once = min(ended + limit, count)
        assert blocking.have_started(at_once)
        assert sorted(blocking.started) == list(range(at_once))
        blocking.let_go(ended)


def test_one_thread_runs_calls_one_after_the_other_in_their_order(make: Make) -> None:
    threads, seen, over = make(1), list[int](), threading.Event()
    for number in range(2_000):
        threads.put(lambda number=number: seen.append(number))
    threads.put(over.set)
    assert over.wait(PATIENCE_S)
    assert seen == list(range(2_000))


def test_what_follows_a_call_is_run_behind_what_was_put_before(make: Make) -> None:
    threads, seen, over = make(1), list[str](), threading.Event()
    first = Blocking(1)
    blocked = first.call(0)

    def followed() -> Call:
        blocked()
        return follows

    def follows() -> None:
        seen.append("the one that follows")
        over.set()

    threads.put(followed)
    assert first.have_started(1)
    threads.put(lambda: seen.append("put while the first one ran"))
    first.let_go(0)
    assert over.wait(PATIENCE_S)
    assert seen == ["put while the first one ran", "the one that follows"]


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_never_more_than_the_limit_run_at_once(make: Make, limit: int) -> None:
    threads, lock, done = make(limit), threading.Lock(), threading.Semaphore(0)
    running = most = 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.0005)  # Its work: it lets go of the interpreter.
        with lock:
            running -= 1
        done.release()

    for _ in range(20 * limit):
        threads.put(call)
    for _ in range(20 * limit):
        assert done.acquire(timeout=PATIENCE_S)
    assert most == limit, "as many as may, and not one more"
    assert len(named(threads._name)) == limit


# -- how many threads


def test_calls_that_are_made_one_by_one_stay_on_two_threads(make: Make) -> None:
    """Two: the next call may come before the thread of the one before has gone back to wait."""
    threads, done, idents = make(16), threading.Semaphore(0), list[int]()

    def call() -> None:
        idents.append(threading.get_ident())
        done.release()

    for _ in range(1_000):
        threads.put(call)
        assert done.acquire(timeout=PATIENCE_S)
    assert len(set(idents)) <= 2


def test_blocking_calls_get_a_thread_each_up_to_the_limit(make: Make) -> None:
    threads, barrier, passed = make(16), threading.Barrier(16), threading.Semaphore(0)

    def call() -> None:
        barrier.wait(PATIENCE_S)
        passed.release()

    for _ in range(16):
        threads.put(call)
    for _ in range(16):
        assert passed.acquire(timeout=PATIENCE_S)


def test_blocking_calls_that_follow_others_get_a_thread_each_too(make: Make) -> None:
    """As a mailbox at its limit does it: what was queued behind comes as the successor of what has ended."""
    threads, barrier, passed = make(16), threading.Barrier(16), threading.Semaphore(0)

    def blocking() -> None:
        barrier.wait(PATIENCE_S)
        passed.release()

    for _ in range(16):
        threads.put(lambda: blocking)
    for _ in range(16):
        assert passed.acquire(timeout=PATIENCE_S)


@pytest.mark.parametrize("blocked", [1, 7, 15])
def test_ct_2_a_call_is_run_beside_those_that_block(make: Make, blocked: int) -> None:
    threads, blocking = make(16), Blocking(blocked)
    for number in range(blocked):
        threads.put(blocking.call(number))
    for _ in range(50):
        over = threading.Event()
        threads.put(over.set)
        assert over.wait(PATIENCE_S)
    assert blocking.have_started(blocked)
    for number in range(blocked):
        blocking.let_go(number)


def test_a_call_may_put_more(make: Make) -> None:
    threads, over, seen = make(4), threading.Event(), list[int]()

    def call(depth: int) -> None:
        seen.append(depth)
        if depth == 9:
            if seen.count(9) == 2**9:
                over.set()
            return
        for _ in range(2):
            threads.put(lambda: call(depth + 1))

    threads.put(lambda: call(0))
    assert over.wait(PATIENCE_S)
    assert collections.Counter(seen) == {depth: 2**depth for depth in range(10)}


# -- quick calls


def made_quick(threads: CallThreads[Call]) -> None:
    """Run quick calls until one thread is enough for them."""

    def quick(left: int) -> Call | None:
        return (lambda: quick(left - 1)) if left else None

    for _ in range(200):
        for _ in range(4):
            threads.put(lambda: quick(SAMPLE))
        if until(lambda: threads._pace.one_is_enough, 0.1):
            return
    raise AssertionError("a machine on which no call is quick")


def test_quick_calls_stay_on_few_threads(make: Make) -> None:
    threads, idents, over = make(16), list[int](), threading.Semaphore(0)
    made_quick(threads)

    def quick(left: int) -> Call | None:
        idents.append(threading.get_ident())
        if not left:
            over.release()
        return (lambda: quick(left - 1)) if left else None

    for _ in range(16):
        threads.put(lambda: quick(500))
    for _ in range(16):
        assert over.acquire(timeout=PATIENCE_S)
    [(_, most)] = collections.Counter(idents).most_common(1)
    assert most > len(idents) / 4, "one thread runs most of them, until the machine is busy for a moment"


@pytest.mark.parametrize("followers", [False, True])
def test_ct_3_blocking_calls_among_quick_ones_get_a_thread_each(make: Make, followers: bool) -> None:
    threads, barrier, passed = make(16), threading.Barrier(16), threading.Semaphore(0)
    made_quick(threads)

    def blocking() -> None:
        barrier.wait(PATIENCE_S)
        passed.release()

    for _ in range(16):
        threads.put((lambda: blocking) if followers else blocking)
    for _ in range(16):
        assert passed.acquire(timeout=PATIENCE_S)


def test_ct_3_a_call_that_computes_does_not_keep_those_behind_it(make: Make) -> None:
    threads, over, started = make(2), threading.Event(), threading.Event()
    made_quick(threads)

    def computes() -> None:
        started.set()
        while not over.is_set():
            pass

    threads.put(computes)
    threads.put(over.set)
    assert started.wait(PATIENCE_S)
    assert over.wait(PATIENCE_S)


def test_threads_that_look_on_do_not_look_for_ever(make: Make) -> None:
    """While one long call runs and none is ready, nobody wakes up."""
    threads, blocking = make(4), Blocking(1)
    made_quick(threads)
    threads.put(blocking.call(0))
    assert blocking.have_started(1)
    assert until(lambda: not threads._watched)
    blocking.let_go(0)


def pace_after(*runs: tuple[int, float]) -> Pace:
    """`count` calls that took `took_s` alone, for each of the runs."""
    pace = Pace()
    for count, took_s in runs:
        for _ in range(count):
            pace.ended(took_s, 1)
    return pace


def test_pace_one_is_tried_after_a_sample_that_may_be_quick_calls_in_a_crowd() -> None:
    assert not pace_after((SAMPLE - 1, CROWD_S / 2)).one_is_enough
    assert pace_after((SAMPLE, CROWD_S / 2)).one_is_enough
    assert not pace_after((10 * SAMPLE, CROWD_S * 2)).one_is_enough


def test_pace_a_trial_shows_how_long_calls_take_alone() -> None:
    assert pace_after((SAMPLE, 0), (10 * SAMPLE, QUICK_S / 2)).one_is_enough
    assert not pace_after((SAMPLE, 0), (SAMPLE - 1, QUICK_S * 2)).one_is_enough


def test_pace_calls_of_a_crowd_take_as_long_as_their_part_of_it() -> None:
    pace = Pace()
    for _ in range(SAMPLE):
        pace.ended(8 * CROWD_S, 16)
    assert pace.one_is_enough


def test_pace_one_late_call_does_not_end_a_trial_and_many_do() -> None:
    late = 3 * SAMPLE * QUICK_S
    assert pace_after((SAMPLE, 0), (1, late), (SAMPLE - 1, QUICK_S / 2)).one_is_enough, "it has waited for the interpreter"
    assert not pace_after((SAMPLE, 0), (2, late)).one_is_enough


def test_pace_a_trial_that_fails_makes_the_next_one_come_later_and_one_that_does_not_makes_it_soon() -> None:
    pace, sample = Pace(), SAMPLE
    for _ in range(10):
        for _ in range(sample - 1):
            pace.ended(0, 1)
            assert not pace.one_is_enough
        pace.ended(0, 1)
        assert pace.one_is_enough
        pace.stalled()
        assert not pace.one_is_enough
        sample = min(2 * sample, SAMPLE_MAX)
    for _ in range(SAMPLE_MAX + SAMPLE):
        pace.ended(0, 1)
    pace.stalled()
    for _ in range(2 * SAMPLE):
        pace.ended(0, 1)
    assert pace.one_is_enough


# -- nothing is lost


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_no_wake_up_is_lost_when_many_wait_for_their_own_calls(make: Make, limit: int) -> None:
    """Each of them puts its next call when the last has ended: threads fall idle and are woken all the time."""
    threads, each, failed = make(limit), 1_000, list[int]()
    ran = collections.Counter[int]()

    def producer(which: int) -> None:
        rng = random.Random(which)
        for number in range(each):
            over = threading.Event()

            def call(over: threading.Event = over) -> Any:
                ran[which] += 1
                over.set()

            # Some come as successors, and some block for a moment.
            shape = rng.randrange(10)
            if shape == 0:
                threads.put(lambda call=call: call)
            elif shape == 1:
                threads.put(lambda call=call: (time.sleep(0.0001), call())[1])
            else:
                threads.put(call)
            if not over.wait(PATIENCE_S):
                failed.append(number)
                return

    producers = [threading.Thread(target=producer, args=(which,)) for which in range(4)]
    for thread in producers:
        thread.start()
    for thread in producers:
        thread.join(2 * PATIENCE_S)
    assert not failed
    assert ran == dict.fromkeys(range(4), each)


def test_many_producers_and_every_call_is_run_once(make: Make) -> None:
    threads, each, seen = make(6), 3_000, list[tuple[int, int]]()

    def producer(which: int) -> None:
        for number in range(each):
            threads.put(lambda number=number: seen.append((which, number)))

    producers = [threading.Thread(target=producer, args=(which,)) for which in range(5)]
    for thread in producers:
        thread.start()
    for thread in producers:
        thread.join()
    assert until(lambda: len(seen) >= 5 * each, PATIENCE_S)
    assert sorted(seen) == [(which, number) for which in range(5) for number in range(each)]


# -- the end


def test_close_lets_idle_threads_end(make: Make) -> None:
    threads, blocking = make(4), Blocking(4)
    for number in range(4):
        threads.put(blocking.call(number))
    assert blocking.have_started(4)
    for number in range(4):
        blocking.let_go(number)
    assert until(lambda: threads._idle == 4)
    threads.close()
    assert until(lambda: not named(threads._name))


def test_close_waits_for_no_call_and_leaves_none_out(make: Make) -> None:
    threads, blocking = make(2), Blocking(7)
    for number in range(7):
        threads.put(blocking.call(number))
    assert blocking.have_started(2)
    threads.close()
    for number in range(7):
        blocking.let_go(number)
    assert until(lambda: not named(threads._name))
    assert sorted(blocking.started) == list(range(7))


def test_a_call_that_is_put_after_the_end_is_run_all_the_same(make: Make) -> None:
    threads, blocking = make(1), Blocking(1)
    threads.put(blocking.call(0))
    assert blocking.have_started(1)
    blocking.let_go(0)
    threads.close()
    assert until(lambda: not named(threads._name))
    over = threading.Event()
    threads.put(over.set)
    assert over.wait(PATIENCE_S)
    assert until(lambda: not named(threads._name))


# -- what must not happen, and does


def test_ct_2_a_failure_of_ours_costs_one_thread_and_another_takes_its_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, told, over = make(1), list[type[BaseException]](), threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda failed: told.append(failed.exc_type))

    def fails() -> None:
        raise ZeroDivisionError("a bug")

    threads.put(fails)
    threads.put(over.set)
    assert over.wait(PATIENCE_S)
    assert until(lambda: told == [ZeroDivisionError])


NO_MORE_THREADS = """
import resource, threading
from actorflow._core.worker.call_threads import QUICK_S, SAMPLE, SAMPLE_MAX, CallThreads, Pace

threading.stack_size(256 * 2**20)
free = 600 * 2**20
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + free, resource.RLIM_INFINITY))
done = threading.Semaphore(0)

def call():
    threading.Event().wait(0.01)
    done.release()

threads = CallThreads(16, lambda call: call(), "narrow")
for _ in range(40):
    threads.put(call)
for number in range(40):
    assert done.acquire(timeout=20), f"{number} of 40 calls were run"
started = sum(thread.name.startswith("narrow") for thread in threading.enumerate())
assert 1 <= started < 16, started
"""


def test_where_the_system_gives_no_more_threads_those_that_are_there_run_all_calls() -> None:
    program = subprocess.run([sys.executable, "-c", NO_MORE_THREADS], capture_output=True, text=True, timeout=50, check=False)
    assert (program.returncode, program.stderr) == (0, "")
