"""Actor classes and handles: what a program sees of an actor, and what is refused before anything is sent."""

import abc
import copy
import functools
import gc
import inspect
import pickle
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cloudpickle
import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._actor import handle_of, plan_of, state_of
from actorflow._handle import ActorHandle, read_interface
from tests.unit.fake_runtime import FakeRuntime, FakeStream


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    fake = FakeRuntime()
    _runtime.set_process_runtime(fake)
    yield fake
    _runtime.set_process_runtime(None)


class Counter(af.Actor, max_restarts=3, max_pending_calls=10, concurrency_groups={"io": 2}):
    def __init__(self, start: int = 0) -> None:
        self.value = start

    @af.method
    async def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    @af.method(timeout=3, concurrency_group="io", max_task_retries=1)
    def peek(self) -> int:
        return self.value

    async def ticks(self, n: int) -> AsyncIterator[int]:
        yield n

    @staticmethod
    def doubled(x: int) -> int:
        return 2 * x

    @classmethod
    def title(cls, prefix: str = "") -> str:
        return prefix + cls.__name__

    def _private(self) -> None: ...

    def __checkpoint__(self) -> int:
        return self.value

    def __restore__(self, value: int) -> None:
        self.value = value


class Plain:
    """A plain class."""

    def __init__(self, x: int) -> None:
        self.x = x

    def get(self) -> int:
        return self.x


Decorated: Any = af.remote(max_restarts=2)(Plain)


@af.remote
class Store:
    def __init__(self, x: int) -> None:
        self.x = x

    def get(self) -> int:
        return self.x


def handle(actor: Any) -> Any:
    """The static type of a handle is its class; tests look at it as it is."""
    return actor


# Making actors ----------------------------------------------------------------------------------------------


async def test_a_handle_is_there_at_once(runtime: FakeRuntime) -> None:
    counter = Counter.remote(5)
    assert [(sent.what, sent.name, sent.args) for sent in runtime.sent] == [("create", "Counter", (5,))]
    assert await counter is counter
    assert await counter.add(2) == 7
    assert await counter.add.remote(by=3) == 10
    assert await handle(counter).peek() == 10


async def test_await_raises_the_constructors_error(runtime: FakeRuntime) -> None:
    counter = Counter.remote()
    state_of(handle(counter)).instance = ValueError("no")  # type: ignore[attr-defined]  # the fake's
    with pytest.raises(ValueError, match="no"):
        await counter


async def test_a_class_is_one_target(runtime: FakeRuntime) -> None:
    Counter.remote()
    Counter.options(name="a").remote()
    Counter.options(name="b", max_restarts=0).remote()
    Counter.options(max_pending_calls=5).remote()
    first, second, third, fourth = runtime.targets
    assert first is second is third
    assert fourth.cls is first.cls
    assert [sent.options.name for sent in runtime.sent] == [None, "a", "b", None]
    assert (first.name, first.is_async, first.groups) == ("Counter", True, {"io": 2})
    assert first.constructor == (("start", "positional_or_keyword", True),)


def test_the_targets_of_one_class_are_pickled_once(runtime: FakeRuntime) -> None:
    Store.options(max_task_retries=3).remote(1)  # type: ignore[attr-defined]  # mypy ignores class decorators
    runtime.targets[0].class_id, runtime.targets[0].pickle = "digest", b"pickle"
    Store.options(max_task_retries=4).remote(1)  # type: ignore[attr-defined]
    assert runtime.targets[1] is not runtime.targets[0]
    assert (runtime.targets[1].class_id, runtime.targets[1].pickle) == ("digest", b"pickle")


def test_wrong_constructor_arguments_never_leave(runtime: FakeRuntime) -> None:
    wrong: Any = Counter
    for make in (wrong.remote, wrong.options(name="x").remote):
        with pytest.raises(
            TypeError, match=r"Counter\.__init__\(\) got an unexpected keyword argument 'begin'.*py:"
        ):
            make(begin=3)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Decorated.remote()
    assert runtime.sent == []


async def test_a_plain_class(runtime: FakeRuntime) -> None:
    actor = Decorated.remote(4)
    assert await actor.get() == 4
    assert await Decorated.options(name="x").remote(5).get() == 5
    assert [sent.options.max_restarts for sent in runtime.sent if sent.what == "create"] == [2, 2]
    assert Decorated.__wrapped__(3).get() == 3
    assert Decorated.__doc__ == "A plain class."
    assert repr(Decorated) == "<actor class Plain>"
    with pytest.raises(TypeError, match=r"Plain\.remote\(\.\.\.\) makes an actor"):
        Decorated(3)


def test_a_child_of_a_decorated_class_is_a_plain_class() -> None:
    class Child(Decorated):
        def more(self) -> int:
            return 1

    assert Child.__mro__[1] is Plain
    assert plan_of(Child).kinds == {"get": "sync", "more": "sync"}


def test_an_ordinary_object_needs_no_cluster() -> None:
    counter = Counter(3)
    assert handle(counter).peek() == 3
    assert inspect.isfunction(Counter.__dict__["add"])
    with pytest.raises(TypeError, match=r"Counter\.remote\(\) makes an actor"):
        handle(counter).__await__()


def test_without_a_runtime_the_error_says_how_to_start() -> None:
    with pytest.raises(af.NotInitializedError):
        Counter.remote()


# Kinds and options ------------------------------------------------------------------------------------------


def test_kinds_of_methods() -> None:
    assert plan_of(Counter).kinds == {
        "add": "async",
        "peek": "sync",
        "ticks": "async_generator",
        "doubled": "sync",
        "title": "sync",
    }
    parameters = {name: target.parameters for name, target in plan_of(Counter).methods.items()}
    assert parameters["peek"] == ()
    assert parameters["doubled"] == (("x", "positional_or_keyword", False),)
    assert parameters["title"] == (("prefix", "positional_or_keyword", True),)


def test_one_public_async_method_makes_an_actor_async(runtime: FakeRuntime) -> None:
    """SEMANTICS 19."""

    class Hooks(af.Actor):
        def get(self) -> int:
            return 1

        async def _helper(self) -> None: ...

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *exc: object) -> None: ...

        async def __checkpoint__(self) -> int:
            return 1

    class Streams(Hooks):
        async def values(self) -> AsyncIterator[int]:
            yield 1

    Hooks.remote()
    Streams.remote()
    assert [target.is_async for target in runtime.targets] == [False, True]


def test_a_shared_actor_has_no_def_methods() -> None:
    """SEMANTICS 22."""
    with pytest.raises(af.OptionError) as caught:

        class Board(af.Actor, process="shared"):
            async def write(self) -> None: ...

            def read(self) -> None: ...

            def scan(self) -> Iterator[int]:
                yield 1

    text = str(caught.value)
    assert text.startswith(
        'class Board(af.Actor): process="shared" does not go with `def` methods: read(), scan()'
    )
    assert "`async def`" in text
    assert 'process="dedicated"' in text
    with pytest.raises(af.OptionError, match=r"Counter\.options\(\): process=\"shared\".*peek\(\)"):
        Counter.options(process="shared")

    class Fine(af.Actor, process="shared"):
        def __init__(self) -> None: ...

        async def write(self) -> None: ...

        def _helper(self) -> None: ...


def test_a_wrong_option_is_refused_with_the_class() -> None:
    wrong: Any = {"max_restart": 3}
    with pytest.raises(
        af.OptionError, match=r"class Bad\(af\.Actor\): there is no option .* 'max_restarts'\?"
    ):

        class Bad(af.Actor, **wrong): ...

    with pytest.raises(af.OptionError, match=r"@af\.remote on Plain: there is no option"):
        af.remote(max_restart=2)(Plain)  # type: ignore[call-overload]  # the act under test


def test_groups_are_checked_against_the_class() -> None:
    with pytest.raises(af.OptionError) as caught:

        class Bad(af.Actor, concurrency_groups={"io": 2}):
            @af.method(concurrency_group="cpu")
            def work(self) -> None: ...

    assert "@af.method on " in str(caught.value)
    assert "concurrency_group='cpu' does not exist: the class has 'io'" in str(caught.value)
    with pytest.raises(af.OptionError, match="the class has none"):

        class None_(af.Actor):
            @af.method(concurrency_group="io")
            def work(self) -> None: ...

    with pytest.raises(af.OptionError, match="belong to the class"):
        Counter.options(concurrency_groups={"io": 3})


def test_checkpoint_every_needs_the_hook() -> None:
    with pytest.raises(af.OptionError, match=r"Define __checkpoint__\(self\)"):

        class Bad(af.Actor, checkpoint_every=3):
            def work(self) -> None: ...

    class Half(af.Actor):
        def __checkpoint__(self) -> int:
            return 1

    with pytest.raises(af.OptionError, match=r"keeps a state that nothing takes back: .*Define __restore__\(self, state\)"):
        Half.options(checkpoint_every="call")
    assert plan_of(Counter).changed(plan_of(Counter).options, {"checkpoint_every": "call"})


def test_the_hooks_of_checkpoints_take_what_they_are_given() -> None:
    """An actor is made anew when nobody is there to mend it."""
    with pytest.raises(af.OptionError, match=r"__restore__ cannot be called as __restore__\(self, state\): .*takes 0 positional arguments"):

        class Forgot(af.Actor):
            def __restore__(self) -> None: ...

    with pytest.raises(af.OptionError, match=r"missing 1 required positional argument: 'more'.*with `async def`"):

        @af.remote
        class Wants:
            async def __restore__(self, state: int, more: int) -> None: ...

    with pytest.raises(af.OptionError, match=r"__checkpoint__ cannot be called as __checkpoint__\(self\): "):

        class Given(af.Actor):
            def __checkpoint__(self, what: str) -> int: ...

    class Fine(af.Actor):
        @classmethod
        def __checkpoint__(cls, deep: bool = False) -> int: ...

        def __restore__(self, *states: int) -> None: ...

    assert plan_of(Fine)


def test_options_are_inherited_but_not_the_name() -> None:
    class Parent(af.Actor, max_restarts=3, name="one", get_if_exists=True):
        def work(self) -> None: ...

    class Child(Parent, num_cpus=2):
        pass

    options = plan_of(Child).options
    assert (options.max_restarts, options.num_cpus, options.name, options.get_if_exists) == (
        3,
        2,
        None,
        False,
    )
    assert plan_of(Parent).options.name == "one"


def test_names_that_are_taken() -> None:
    with pytest.raises(TypeError, match="cannot have a method of this name"):

        class Bad(af.Actor):
            def options(self) -> None: ...  # type: ignore[override]  # the act under test

    with pytest.raises(TypeError, match=r"Worse\.work has @af\.remote, which is for functions"):

        class Worse(af.Actor):
            work = af.remote(len)


def test_method_decorator_is_for_methods() -> None:
    wrong: Any = af.method
    for value in (3, Plain, functools.partial(len)):
        with pytest.raises(TypeError, match=r"@af\.method is for methods"):
            wrong(value)
    with pytest.raises(af.OptionError, match=r"@af\.method on .*add: there is no option 'timout'"):

        class Bad(af.Actor):
            @wrong(timout=3)
            def add(self) -> None: ...

    with pytest.raises(TypeError, match="options go first"):
        wrong(len, timeout=3)


def test_an_abstract_class_is_no_actor(runtime: FakeRuntime) -> None:
    class Base(af.Actor, abc.ABC):
        @abc.abstractmethod
        async def work(self) -> None: ...

    with pytest.raises(TypeError, match="is abstract: it does not implement work"):
        Base.remote()
    assert runtime.sent == []


def test_dataclasses_and_generics_can_be_actors(runtime: FakeRuntime) -> None:
    T = TypeVar("T")

    @dataclass
    class Point(af.Actor, max_restarts=1):
        x: int = 0

        def get(self) -> int:
            return self.x

    @dataclass(slots=True)
    class Slotted(af.Actor, max_restarts=1):
        x: int = 0

        def get(self) -> int:
            return self.x

    class Box(af.Actor, Generic[T]):
        def get(self) -> int:
            return 1

    Point.remote(3)
    Slotted.remote(x=3)
    Box.remote()
    assert [sent.options.max_restarts for sent in runtime.sent] == [1, 1, 0]
    assert [list(target.methods) for target in runtime.targets] == [["get"]] * 3


def test_other_kinds_of_methods(runtime: FakeRuntime) -> None:
    class Odd(af.Actor):
        value = property(lambda self: 1)

        def power(self, base: int, exponent: int) -> int:
            return int(base**exponent)

        square = functools.partialmethod(power, exponent=2)

        @functools.lru_cache  # noqa: B019  # the act under test
        def cached(self, x: int) -> int:
            return x

        @af.method(timeout=2)
        @staticmethod
        def above(x: int) -> int:
            return x

        @staticmethod
        @af.method(timeout=3)
        def below(x: int) -> int:
            return x

    class Without(Odd):
        power = None  # type: ignore[assignment]  # a child takes a method away

    methods = plan_of(Odd).methods
    assert list(methods) == ["power", "square", "cached", "above", "below"]
    assert methods["cached"].parameters == methods["above"].parameters
    assert (methods["above"].options.timeout, methods["below"].options.timeout) == (2.0, 3.0)
    assert "power" not in plan_of(Without).kinds


# Handles ----------------------------------------------------------------------------------------------------


async def test_calls_carry_the_methods_options(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    await counter.add()
    await counter.peek()
    await counter.peek.options(timeout=9)()
    add, peek, other = (sent.options for sent in runtime.sent[1:])
    assert (add.timeout, add.concurrency_group, add.max_task_retries) == (None, "", 0)
    assert (peek.timeout, peek.concurrency_group, peek.max_task_retries) == (3.0, "io", 1)
    assert (other.timeout, other.concurrency_group) == (9.0, "io")
    await handle(Counter.options(max_task_retries=5).remote()).add()
    assert runtime.sent[-1].options.max_task_retries == 5


async def test_submit_waits_for_room(runtime: FakeRuntime) -> None:
    counter = Counter.remote()
    assert (state_of(handle(counter)).max_pending_calls, state_of(handle(counter)).max_task_retries) == (
        10,
        0,
    )
    runtime.full = 2
    with pytest.raises(af.PendingCallsLimitExceeded):
        counter.add.remote(1)
    assert await (await counter.add.submit(1)) == 1
    assert runtime.waits_for_room == 1


async def test_generators_give_streams(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    assert isinstance(counter.ticks(3), FakeStream)
    assert isinstance(counter.ticks.remote(3), FakeStream)
    with pytest.raises(af.OptionError, match="num_returns=2 is not for a generator"):
        counter.ticks.options(num_returns=2)


async def test_static_and_class_methods_can_be_called(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    assert await counter.doubled(4) == 8
    assert await counter.title(prefix="my ") == "my Counter"


def test_wrong_arguments_never_leave(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    for call in (counter.add, counter.add.remote, counter.add.submit, counter.add.options(timeout=1).remote):
        with pytest.raises(TypeError) as caught:
            call(bye=2)
        assert str(caught.value).startswith(
            "Counter.add() got an unexpected keyword argument 'bye' (defined at "
        )
    with pytest.raises(TypeError, match=r"takes from 0 to 1 positional arguments but 2 were given"):
        counter.add.remote(1, 2)
    assert len(runtime.sent) == 1


def test_options_of_one_call_are_checked(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    with pytest.raises(af.OptionError, match=r"Counter\.add\.options\(\): .*'timout'.*'timeout'\?"):
        counter.add.options(timout=3)
    with pytest.raises(af.OptionError, match="the class has 'io'"):
        counter.add.options(concurrency_group="cpu")
    with pytest.raises(af.OptionError, match=r"@af\.method\(interruptible=True\)"):
        counter.add.options(interruptible=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ad", "the actor class Counter has no method 'ad'. Did you mean 'add'?"),
        ("frobnicate", "It has add, doubled, peek, ticks, title."),
        ("kill", "Write `await af.kill(handle)`"),
        ("remote", "a handle to an actor that exists"),
        ("_private", "Counter._private is private"),
        ("__checkpoint__", "no attribute '__checkpoint__'"),
    ],
)
def test_a_handle_has_only_the_public_methods(runtime: FakeRuntime, name: str, text: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(Counter.remote(), name)
    assert text in str(caught.value)


def test_a_handle_takes_no_attributes(runtime: FakeRuntime) -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match="cannot set 'value' on a handle to Counter"):
        counter.value = 3
    with pytest.raises(AttributeError, match="cannot delete 'value'"):
        del counter.value


def test_equality_and_looks(runtime: FakeRuntime) -> None:
    one, two = handle(Counter.remote()), handle(Counter.remote())
    same = pickle.loads(pickle.dumps(one))
    assert same == one != two
    assert len({one, two, same}) == 2
    assert repr(one) == "Counter(af-actor-000000000000)"
    assert repr(one.add) == "Counter(af-actor-000000000000).add"
    assert one.add.__name__ == "add"
    assert {"add", "peek", "ticks"} <= set(dir(one))
    assert copy.copy(one) is one
    assert copy.deepcopy([one])[0] is one
    assert isinstance(one, ActorHandle)


def test_methods_are_made_once(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    assert counter.add is counter.add


def test_methods_do_not_keep_their_handle(runtime: FakeRuntime) -> None:
    counter = handle(Counter.remote())
    add, alive = counter.add, weakref.ref(counter)
    gc.disable()
    try:
        del counter
        assert alive() is None
    finally:
        gc.enable()
    assert state_of(pickle.loads(pickle.dumps(add)).__reduce__()[1][0]) is state_of(add.__reduce__()[1][0])


# Travelling -------------------------------------------------------------------------------------------------


async def test_a_handle_travels_with_its_interface(runtime: FakeRuntime) -> None:
    """SEMANTICS 23: the reference that counts handles goes along."""
    counter = handle(Counter.remote(3))
    data = cloudpickle.dumps([counter] * 100)
    assert b"value" not in data
    copies = pickle.loads(data)
    assert len(data) < len(pickle.dumps(counter)) + 500
    (restored,) = runtime.restored
    assert restored[:3] == ("000000000000", "lifetime", "Counter")
    assert restored[3] == runtime.targets[0].interface
    assert await copies[0].add(2) == 5
    with pytest.raises(TypeError, match=r"Counter\.add\(\) got an unexpected"):
        copies[0].add(bye=1)
    assert copies[0].add._options.__class__ is counter.add._options.__class__
    assert read_interface(restored[3]) is read_interface(restored[3])


async def test_a_handle_from_its_state_and_blob(runtime: FakeRuntime) -> None:
    """What `af.get_actor` does with what the head knows."""
    counter = handle(Counter.options(max_pending_calls=4, max_task_retries=2).remote())
    state, blob = state_of(counter), runtime.targets[0].interface
    state.max_pending_calls = state.max_task_retries = 0
    found = handle_of(state, blob)
    assert found == counter
    assert (state.max_pending_calls, state.max_task_retries) == (4, 2)
    assert await found.peek() == 0
    assert runtime.sent[-1].options.max_task_retries == 1
    await found.add()
    assert runtime.sent[-1].options.max_task_retries == 2


def test_a_method_travels_with_its_options(runtime: FakeRuntime) -> None:
    method = handle(Counter.remote()).peek.options(timeout=7)
    other = pickle.loads(pickle.dumps(method))
    assert (other._options.timeout, other._options.concurrency_group) == (7.0, "io")


def test_options_may_name_types_of_the_users_program(runtime: FakeRuntime) -> None:
    class Flaky(Exception): ...

    class Caller(af.Actor):
        @af.method(retry_exceptions=(Flaky,), max_task_retries=2)
        async def call(self) -> None: ...

    interface = read_interface(plan_of(Caller).target(plan_of(Caller).options)[1].blob)
    assert interface.methods["call"].options.retry_exceptions[0].__name__ == "Flaky"


def local_class() -> Any:
    class Local(af.Actor, max_restarts=2, concurrency_groups={"io": 1}):
        def __init__(self, x: int = 1) -> None:
            super().__init__()
            self.x = x

        @af.method(concurrency_group="io", timeout=3)
        async def get(self) -> int:
            return self.x

    return Local


def local_plain() -> type:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def get(self) -> int:
            return self.x

    return Local


def by_value_classes() -> list[Callable[[], Any]]:
    return [
        local_class,
        lambda: local_class().options(name="x"),
        lambda: af.remote(max_restarts=2)(local_plain()),
    ]


@pytest.mark.parametrize("make", by_value_classes())
async def test_a_class_travels_with_its_options(runtime: FakeRuntime, make: Callable[[], Any]) -> None:
    cls = make()
    handle(cls.remote(3))
    data = cloudpickle.dumps(cls)
    # In its own process cloudpickle gives a class back as it is; make it forget what no other process knows.
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
    other = pickle.loads(data)
    assert getattr(other, "__wrapped__", other) is not getattr(cls, "__wrapped__", cls)
    actor = other.remote(4)
    assert await actor.get() == 4
    first, second = (sent.options for sent in runtime.sent if sent.what == "create")
    assert (second.max_restarts, second.name) == (first.max_restarts, first.name)
    sent = runtime.sent[-1].options
    assert (sent.timeout, sent.concurrency_group) in ((3.0, "io"), (None, ""))


def test_an_importable_class_travels_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(Counter)) is Counter
    assert pickle.loads(cloudpickle.dumps(Store)) is Store
    other = pickle.loads(cloudpickle.dumps(Store.options(name="x")))  # type: ignore[attr-defined]
    assert other.__wrapped__ is Store.__wrapped__  # type: ignore[attr-defined]
