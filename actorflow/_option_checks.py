"""What one option may be: a check takes the option's name and the user's value and returns the value to keep.

A check raises OptionError, or OptionTypeError when the type is wrong; the message has the option, the value
and what would be right. Where the option stands is added by the caller (`actorflow.options`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from actorflow._core.base.errors import NotYetSupportedError, OptionError, OptionTypeError
from actorflow._core.base.resources import parse_amount, parse_bytes, parse_resources
from actorflow._core.base.texts import check_encodable

Check = Callable[[str, Any], Any]

INTEGER_MAX = 2**63 - 1
"""What a message can carry."""

NODE_ID_NEEDED = "Give the id of a node: `actorflow status` and af.state.list_nodes() have them"

_ELSEWHERE = {
    "name": "a name belongs to an actor: a class, or Cls.options(name=...)",
    "max_restarts": "only actors restart; a task is tried again: max_retries",
    "max_retries": "only tasks have max_retries; for an actor: max_restarts and max_task_retries",
    "num_cpus": "resources belong to the actor, not to one of its methods",
    "num_gpus": "resources belong to the actor, not to one of its methods",
    "concurrency_group": "this belongs to a method: @af.method(concurrency_group=...)",
    "timeout": "a timeout belongs to a call: @af.method(timeout=...), or handle.method.options(timeout=...)",
}
"""What to say of an option that exists, but not here."""


def wrong(option: str, value: object, what: str, next_step: str) -> OptionError:
    """The error for a value of the right type that cannot be right."""
    return OptionError.explain(which=f"{option}={value!r}", what=what, next_step=next_step, option=option)


def wrong_type(option: str, value: object, next_step: str) -> OptionTypeError:
    """The error for a value of a wrong type."""
    what = f"is of the type {type(value).__name__}"
    return OptionTypeError.explain(which=f"{option}={value!r}", what=what, next_step=next_step, option=option)


def unknown(option: str, known: Iterable[str]) -> OptionError:
    """The error for an option that does not exist here: names the nearest one that does, or all."""
    import difflib

    known = sorted(known)
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
    if option in _ELSEWHERE:
        next_step = _ELSEWHERE[option]
    elif near:
        next_step = f"Did you mean {near[0]!r}?"
    else:
        next_step = f"The options are {', '.join(known)}"
    text = f"there is no option {option!r} here. {next_step[:1].upper()}{next_step[1:]}"
    return OptionError(text if text.endswith("?") else f"{text}.", option=option)


# Numbers ----------------------------------------------------------------------------------------------------


def amount(option: str, value: Any) -> float:
    """An amount of a resource: a number from 0 on."""
    parse_amount(option, value)
    number: float = value
    return number


def size(option: str, value: Any) -> int | None:
    """Bytes, or text such as "4GiB"."""
    return None if value is None else parse_bytes(option, value)


def integer(option: str, value: Any) -> int:
    """Any whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(option, value, f"A whole number is right, as in {option}=1")
    if abs(value) > INTEGER_MAX:
        raise wrong(option, value, "is too large", f"Give a number of at most {INTEGER_MAX}")
    return value


def count(least: int, note: str = "", *, most: int = INTEGER_MAX) -> Check:
    """A whole number from `least` on; `note` explains a special one."""

    def check(option: str, value: Any) -> int:
        number = integer(option, value)
        if number > most:
            raise wrong(option, value, "is too large", f"Give {most} or less")
        if number < least:
            raise wrong(option, value, "is too small", f"Give {least} or more{f'; {note}' if note else ''}")
        return number

    return check


def optional(check: Check) -> Check:
    """None, or what `check` takes."""
    return lambda option, value: None if value is None else check(option, value)


def pending_calls(option: str, value: Any) -> int:
    """-1, or a bound from 1 on."""
    if (number := integer(option, value)) != -1 and number < 1:
        raise wrong(option, value, "would let no call through", "Give 1 or more; -1 means any number")
    return number


def seconds(option: str, value: Any) -> float | None:
    """None, which means no limit, or a finite number above 0."""
    return None if value is None else span(option, value, ", or None for no limit")


def span(option: str, value: Any, instead: str = "") -> float:
    """A finite number above 0. `instead`: what else is right, for the error."""
    number = _number_of_seconds(option, value, instead)
    if not (number > 0 and math.isfinite(number)):
        raise wrong(option, value, "is not a time", f"Give a number of seconds above 0{instead}")
    return number


def pause(option: str, value: Any) -> float:
    """A finite number of seconds, or 0 for none."""
    number = _number_of_seconds(option, value, "")
    if not (number >= 0 and math.isfinite(number)):
        raise wrong(option, value, "is not a time", "Give a number of seconds, or 0 for at once")
    return number


def patience(option: str, value: Any) -> float:
    """How long somebody waits who does not wait for ever (None, which the caller has looked at): a finite number.

    What is left of a time may be less than nothing: then it is over, as for asyncio.
    """
    number = _number_of_seconds(option, value, ", or None for no limit")
    if not math.isfinite(number):
        raise wrong(option, value, "is not a time", "Give a number of seconds, or None for no limit")
    return max(0.0, number)


def _number_of_seconds(option: str, value: Any, instead: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(option, value, f"Seconds are right, as in {option.rpartition(': ')[2]}=2.5{instead}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def checkpoint_every(option: str, value: Any) -> float | str | None:
    """None, seconds, or "call"."""
    if isinstance(value, str) and value != "call":
        raise wrong(option, value, "is neither", 'Give a number of seconds, or "call"')
    return value if value is None or isinstance(value, str) else span(option, value, ', or "call", or None for no checkpoints')


# Words ------------------------------------------------------------------------------------------------------


def flag(option: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong_type(option, value, "True or False is right")
    return value


def one_of(*choices: str | None) -> Check:
    """One of a few words (or None)."""
    listed = " or ".join(repr(choice) for choice in choices)

    def check(option: str, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            raise wrong_type(option, value, f"{listed} is right")
        if value not in choices:
            raise wrong(option, value, "is not a choice", f"{listed} is right")
        return value

    return check


def group_name(option: str, value: Any) -> str:
    """Text; whether the class has such a group is checked with the class."""
    if not isinstance(value, str):
        raise wrong_type(
            option, value, f'The name of one of the class\'s groups is right, as in {option}="io"'
        )
    check_encodable(option, value)
    return value


def name_or_none(option: str, value: Any) -> str | None:
    """None, or text that is not empty."""
    return None if value is None else name(option, value, "Give it a name, or leave it out")


def name(option: str, value: Any, next_step: str = "Give it a name") -> str:
    """Text that is not empty; `next_step` says what to do when it is."""
    if not isinstance(value, str):
        raise wrong_type(option, value, f'Text is right, as in {option.rpartition(": ")[2]}="main"')
    if not value.strip():
        raise wrong(option, value, "is empty", next_step)
    check_encodable(option, value)
    return value


def strategy(affinity: type) -> Check:
    """Either "default", "spread" (in any case: Ray writes them in capitals), or an instance of `affinity`."""
    right = '"default", "spread" and af.NodeAffinity(node_id) are right'

    def check(option: str, value: Any) -> Any:
        if isinstance(value, affinity):
            name(f"{option}=af.NodeAffinity: node_id", getattr(value, "node_id", None), NODE_ID_NEEDED)
            return value
        if value is None:
            return "default"
        if not isinstance(value, str):
            raise wrong_type(option, value, right)
        if value.lower() not in ("default", "spread"):
            raise wrong(option, value, "is not a strategy", right)
        return value.lower()

    return check


# Collections ------------------------------------------------------------------------------------------------


def custom_resources(option: str, value: Any) -> dict[str, float] | None:
    """Amounts by name."""
    if value is None:
        return None
    parse_resources(resources=value)
    return dict(value)


def groups(option: str, value: Any) -> dict[str, int]:
    """Limits by name of a concurrency group."""
    if not isinstance(value, Mapping):
        raise wrong_type(option, value, f'Limits by name are right, as in {option}={{"io": 2}}')
    limit = count(1)
    for name, calls in value.items():
        if not isinstance(name, str) or not name:
            raise wrong(
                f"{option}[{name!r}]", calls, "has no usable name", "A name is text that is not empty"
            )
        check_encodable(f"{option}[{name!r}]", name)
        limit(f"{option}[{name!r}]", calls)
    return dict(value)


def retry_exceptions(option: str, value: Any) -> bool | tuple[type[Exception], ...]:
    """True, False, or some types of exceptions."""
    right = f"True, False or a tuple of exception types is right, as in {option}=(ConnectionError,)"
    if isinstance(value, bool):
        return value
    if not isinstance(value, tuple | list):
        raise wrong_type(option, value, right)
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise wrong_type(option, value, f"{kind!r} is not a type of Exception; {right}")
    return tuple(value)


def label_selector(option: str, value: Any) -> dict[str, str] | None:
    """Conditions on the labels of a node, as in {"zone": "in(a,b)"}."""
    if not value:
        return None
    from actorflow._core.policy.label_selectors import parse_selector

    parse_selector(option, value)
    return dict(value)


def fallback_strategy(option: str, value: Any) -> tuple[dict[str, str], ...]:
    """Selectors in the order in which they are tried, each as a dict with `label_selector` and nothing else."""
    right = f'A list is right, as in {option}=[{{"label_selector": {{"zone": "b"}}}}, {{"label_selector": {{}}}}]'
    if not value and not isinstance(value, Mapping | str):
        return ()
    if not isinstance(value, list | tuple):
        raise wrong_type(option, value, right)
    selectors = []
    for number, each in enumerate(value):
        which = f"{option}[{number}]"
        if not isinstance(each, Mapping):
            raise wrong_type(which, each, right)
        if set(each) != {"label_selector"}:
            raise wrong(which, dict(each), "is not a label_selector and nothing else", right)
        selectors.append(label_selector(f"{which}['label_selector']", each["label_selector"]) or {})
    return tuple(selectors)


# Placement and environment ----------------------------------------------------------------------------------


def placement_group(option: str, value: Any) -> Any:
    """None, or a handle to a group."""
    if value is None:
        return None
    from actorflow._placement import PlacementGroup

    if not isinstance(value, PlacementGroup):
        raise wrong_type(option, value, "What af.placement_group(...) gives is right, or None")
    return value


def runtime_env(option: str, value: Any) -> dict[str, Any]:
    """A dict of environment options: `env_vars` and `working_dir` so far."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong_type(option, value, f'A dict is right, as in {option}={{"env_vars": {{"A": "1"}}}}')
    checks: dict[str, Check] = {"env_vars": env_vars, "working_dir": working_dir}
    for name in value:
        if name not in checks:
            raise NotYetSupportedError(
                f"{option}: {name!r} is not supported yet. These are: {', '.join(sorted(checks))}."
            )
    return {name: checks[name](f"{option}[{name!r}]", part) for name, part in value.items()}


def env_vars(option: str, value: Any) -> dict[str, str] | None:
    """Environment variables: text by name."""
    if value is None:
        return None
    variables = _text_by_name(option, value, "OMP_NUM_THREADS")
    for name, text in variables.items():
        if "=" in name or "\0" in name + text:
            raise wrong(
                f"{option}[{name!r}]", text, "cannot be an environment variable", "Take = and NUL out"
            )
    return variables


def working_dir(option: str, value: Any) -> str | None:
    """The path of a directory. It is looked at where the worker is to start, not here."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise wrong_type(option, value, f'The path of a directory is right, as in {option}="./job"')
    path = os.fspath(value)
    if not isinstance(path, str) or not path:
        raise wrong(
            option, value, "is not the path of a directory", f'Write it as text, as in {option}="./job"'
        )
    if "://" in path:
        raise NotYetSupportedError(f"{option}={path!r}: only directories of this machine are supported yet.")
    full = os.path.abspath(os.path.expanduser(path))
    check_encodable(option, full)
    return full


def _text_by_name(option: str, value: Any, example: str) -> dict[str, str]:
    right = f'Text by name is right, as in {option}={{"{example}": "1"}}'
    if not isinstance(value, Mapping):
        raise wrong_type(option, value, right)
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise wrong_type(f"{option}[{name!r}]", text, right)
        if not name:
            raise wrong(f"{option}[{name!r}]", text, "has no usable name", "A name is text that is not empty")
        check_encodable(f"{option}[{name!r}]", name)
        check_encodable(f"{option}[{name!r}]", text)
    return dict(value)
