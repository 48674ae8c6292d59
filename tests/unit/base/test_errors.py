"""The tree of errors: as drawn, catchable by its builtin parents, and the same after a pickle round trip."""

import copy
import inspect
import pickle
import re
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import actorflow.errors
from actorflow._core.base import errors
from actorflow._core.base.errors import (
    TREE,
    ActorDiedError,
    ActorflowError,
    ActorNotFoundError,
    ActorUnavailableError,
    ClusterConnectionError,
    GetTimeoutError,
    Hop,
    ObjectFreedError,
    OptionError,
    OptionTypeError,
    Origin,
    TaskError,
    TaskTimeoutError,
    WorkerCrashedError,
    explain,
    origin_of,
)

CLASSES = sorted(TREE.values(), key=lambda cls: cls.__name__)
BUILTIN_PARENTS: dict[str, list[type[Exception]]] = {
    "OptionError": [ValueError],
    "OptionTypeError": [ValueError, TypeError],
    "NotInitializedError": [RuntimeError],
    "AlreadyInitializedError": [RuntimeError],
    "ForkedError": [RuntimeError],
    "ClusterConnectionError": [ConnectionError, OSError],
    "NotYetSupportedError": [NotImplementedError, RuntimeError],
    "SerializationError": [TypeError],
    "TaskTimeoutError": [TimeoutError, OSError],
    "GetTimeoutError": [TimeoutError, OSError],
    "ActorAlreadyExistsError": [ValueError],
    "ActorNotFoundError": [ValueError],
}
# A way to make a second error from a first one.
COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "pickle 5": lambda error: pickle.loads(pickle.dumps(error, 5)),
    "cloudpickle": lambda error: pickle.loads(cloudpickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


class OutOfCookies(ActorDiedError):
    """A user's own class below ours."""

    jar: str = ""


def facts_of(cls: type[ActorflowError]) -> list[str]:
    """The facts that a class and its parents below the root declare."""
    if issubclass(cls, TaskError):
        return ["function_name", "task", "process_id", "pid", "actor", "remote_traceback", "cause"]
    below = [base for base in cls.__mro__ if base in CLASSES and base is not ActorflowError]
    return [name for base in below for name in vars(base) if not name.startswith("_")]


# The tree ---------------------------------------------------------------------------------------------------


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Read the drawing: {class: (parent, builtin parent)}."""
    found: dict[str, tuple[str | None, str | None]] = {}
    open_branches: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│ ]*(?:[├└]── )?)(\w+)(?: \((\w+)\))?(?: |$)", line):
            branch, name, builtin = match.groups()
            depth = len(branch) // 4
            del open_branches[depth:]
            found[name] = (open_branches[-1] if open_branches else None, builtin)
            open_branches.append(name)
    return found


def test_the_drawing_shows_every_class_below_its_parent() -> None:
    actual = {
        cls.__name__: next((base.__name__ for base in cls.__bases__ if base in CLASSES), None)
        for cls in CLASSES
    }
    assert {name: parent for name, (parent, _) in drawn_tree().items()} == actual


def test_the_drawing_shows_the_builtin_parents() -> None:
    actual = {
        cls.__name__: next((base.__name__ for base in cls.__bases__ if base.__module__ == "builtins"), None)
        for cls in CLASSES
        if cls is not ActorflowError
    }
    assert {name: builtin for name, (_, builtin) in drawn_tree().items()} == {"ActorflowError": None} | actual


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_says_when_it_is_raised(cls: type[ActorflowError]) -> None:
    first_line = (vars(cls)["__doc__"] or "").splitlines()[0]
    assert first_line.endswith((".", ":"))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_code_that_knows_only_builtins_can_catch_it(cls: type[ActorflowError]) -> None:
    for parent in BUILTIN_PARENTS.get(cls.__name__, [Exception]):
        with pytest.raises(parent):
            raise cls("a message")


def test_an_error_is_an_exception_and_never_ends_the_interpreter() -> None:
    assert all(issubclass(cls, Exception) for cls in CLASSES)


def test_the_public_module_has_the_whole_tree_in_order() -> None:
    assert actorflow.errors.__all__ == sorted(TREE)
    assert all(getattr(actorflow.errors, name) is cls for name, cls in TREE.items())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_traceback_names_it_as_one_would_catch_it(cls: type[ActorflowError]) -> None:
    assert traceback.format_exception_only(cls("why")) == [f"actorflow.{cls.__name__}: why\n"]


# Facts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_fact_can_be_given_and_has_a_default(cls: type[ActorflowError]) -> None:
    given = {name: object() for name in facts_of(cls)}
    error, bare = cls("m", **given), cls("m")
    assert {name: getattr(error, name) for name in given} == given
    assert not any(getattr(bare, name) for name in given)


def test_an_unknown_fact_is_a_mistake_in_the_code_that_raises() -> None:
    with pytest.raises(TypeError, match="ObjectFreedError\\(\\) got an unexpected keyword argument 'actor'"):
        ObjectFreedError("m", actor="Counter")
    with pytest.raises(TypeError, match="'args'"):
        ObjectFreedError("m", args=())


def test_facts_come_from_parents_too() -> None:
    error = ActorDiedError("m", actor="Counter(af-1)", log_tail=("last words",))
    assert (error.actor, error.log_tail, error.reason) == ("Counter(af-1)", ("last words",), "")
    assert OptionTypeError("m", option="num_cpus").option == "num_cpus"


def test_without_a_message_there_are_no_args() -> None:
    assert ActorUnavailableError().args == ()
    assert str(ActorUnavailableError()) == ""


def test_an_os_error_has_its_message_and_no_number() -> None:
    error = ClusterConnectionError("nobody answers", address="unix:/x")
    assert (str(error), error.errno, error.address) == ("nobody answers", None, "unix:/x")


def test_waiting_too_long_and_running_too_long_are_two_things() -> None:
    """SEMANTICS 2: `timeout=` of get only stops waiting."""
    assert not issubclass(GetTimeoutError, TaskTimeoutError)
    assert not issubclass(TaskTimeoutError, GetTimeoutError)


# Messages ---------------------------------------------------------------------------------------------------


def test_a_message_says_what_which_why_and_next() -> None:
    text = explain(
        which="Counter(af-actor-7f2)",
        what="died on node-3",
        why="killed by out-of-memory (3.9 of 4.0 GiB)",
        next_step="set max_restarts to let it restart",
        story=["12:00:01 created", "12:00:07 call add"],
        log_tail=["loading...\n"],
    )
    assert text.splitlines() == [
        "Counter(af-actor-7f2) died on node-3: killed by out-of-memory (3.9 of 4.0 GiB). "
        "Set max_restarts to let it restart.",
        "What happened before:",
        "  12:00:01 created",
        "  12:00:07 call add",
        "Its last output:",
        "  loading...",
    ]


def test_a_message_needs_only_the_what() -> None:
    assert explain(what="nobody is there") == "nobody is there."


def test_a_next_step_that_begins_with_code_keeps_its_letters() -> None:
    assert explain(what="x", next_step="af.put(v) waits") == "x. af.put(v) waits."
    assert explain(what="x", next_step="wait, then go on.") == "x. Wait, then go on."
    assert explain(what="x", why="did you mean y?", next_step="try") == "x: did you mean y? Try."
    assert explain(what="x", why="did you mean y?") == "x: did you mean y?"


WORDS = st.text("abc ._(")


@given(WORDS, WORDS, WORDS, WORDS)
def test_a_message_has_all_of_its_parts(what: str, which: str, why: str, next_step: str) -> None:
    text = explain(what=what, which=which, why=why, next_step=next_step)
    assert text.endswith(".")
    for part in (what, which, why, next_step):
        assert part.strip(" .").lower() in text.lower()


def test_an_error_made_from_a_message_keeps_the_why_and_the_log() -> None:
    error = WorkerCrashedError.explain(
        what="died", which="worker 7", why="killed by SIGKILL", log_tail=iter(["a", "b"]), signal=9, pid=7
    )
    assert str(error).startswith("worker 7 died: killed by SIGKILL.\nIts last output:\n  a")
    assert (error.reason, error.log_tail, error.signal, error.pid) == ("killed by SIGKILL", ("a", "b"), 9, 7)


def test_an_error_without_a_reason_is_explained_all_the_same() -> None:
    error = OptionError.explain(
        which="num_cpus=-1", what="is negative", next_step="use 0 or more", option="num_cpus"
    )
    assert str(error) == "num_cpus=-1 is negative. Use 0 or more."
    assert vars(error) == {"option": "num_cpus"}


# Pickles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("cls", [*CLASSES, OutOfCookies], ids=lambda cls: cls.__name__)
def test_an_error_pickles_with_its_attributes(
    cls: type[ActorflowError], copied: Callable[[ActorflowError], ActorflowError]
) -> None:
    facts: dict[str, Any] = {name: f"the {name}" for name in facts_of(cls) if name != "cause"}
    error = cls("a message", **facts)
    error.add_note("a note")
    again = copied(error)
    assert type(again) is cls
    assert again.args == ("a message",)
    assert {name: getattr(again, name) for name in facts} == facts
    assert again.__notes__ == ["a note"]


@given(st.sampled_from(CLASSES), st.lists(st.text() | st.integers()))
def test_whatever_is_in_args_pickles(cls: type[ActorflowError], args: list[object]) -> None:
    error = cls()
    error.args = tuple(args)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (cls, tuple(args))


def test_an_error_does_not_depend_on_where_it_is_exported() -> None:
    assert b"actorflow._core.base.errors" in pickle.dumps(ActorDiedError("m"))


# TaskError --------------------------------------------------------------------------------------------------


def test_a_task_error_tells_of_the_call() -> None:
    cause = KeyboardInterrupt()
    error = TaskError(
        "m",
        function_name="work",
        task="task-1f2e3d-7",
        process_id="9f3a21c0ffee",
        pid=4211,
        actor="Counter(af-1)",
        remote_traceback="Traceback...",
        cause=cause,
    )
    assert (error.function_name, error.task, error.process_id) == ("work", "task-1f2e3d-7", "9f3a21c0ffee")
    assert (error.pid, error.actor, error.remote_traceback) == (4211, "Counter(af-1)", "Traceback...")
    assert error.cause is cause
    assert error.hops == (Hop("work", "task-1f2e3d-7", "9f3a21c0ffee", 4211, "Counter(af-1)"),)


def test_semantics_10_there_is_one_dunder_attribute_of_ours() -> None:
    assert list(vars(TaskError("m", function_name="work"))) == ["__actorflow__"]


@pytest.mark.parametrize("name", ["function_name", "task", "process_id", "pid", "actor", "hops", "cause"])
def test_semantics_10_an_attribute_of_the_users_wins_over_ours(name: str) -> None:
    error = TaskError("m", task="task-1")
    setattr(error, name, "the user's")
    assert getattr(error, name) == "the user's"


def test_a_task_error_that_lost_its_origin_still_answers() -> None:
    error = TaskError("m")
    del vars(error)["__actorflow__"]
    assert (error.task, error.pid, error.hops, error.remote_traceback, error.cause) == ("", 0, (), "", None)
    assert origin_of(error) is None


def test_attributes_of_the_class_have_their_docs() -> None:
    assert inspect.getdoc(TaskError.pid) == "The operating system's number of that process."


def test_a_hop_reads_well_with_and_without_an_actor() -> None:
    hop = Hop("add", "task-1f2e3d-7", "9f3a21c0ffee", 4211)
    assert hop.describe() == "add (task-1f2e3d-7, process 9f3a21c0ffee, pid 4211)"
    assert hop._replace(actor="Counter(af-1)").describe().endswith("pid 4211, actor Counter(af-1))")


def test_an_origin_pickles_its_traceback_as_text() -> None:
    try:
        raise ValueError("far away")
    except ValueError as caught:
        origin = Origin((Hop("f", "t", "p", 1),), caught.__traceback__)
    again = pickle.loads(pickle.dumps(origin))
    assert again.traceback is None
    assert again.hops == origin.hops
    assert 'raise ValueError("far away")' in again.text


@pytest.mark.parametrize("error", [ActorNotFoundError("m"), ValueError("m"), KeyboardInterrupt()], ids=repr)
def test_other_exceptions_have_no_origin(error: BaseException) -> None:
    assert origin_of(error) is None
