"""Options are checked where they are written, and cost nothing afterwards."""

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from actorflow import options as face
from actorflow._core.base.resources import UNIT
from actorflow._placement import PlacementGroup
from actorflow.errors import NotYetSupportedError, OptionError, OptionTypeError
from actorflow.options import NodeAffinity, actor_options, method_options, task_options

WHERE = "@af.remote on square"
GROUP = PlacementGroup("g1", "PACK", [{"CPU": 2 * UNIT}, {"GPU": UNIT}], [], None)


class NotHashable(dict[str, Any]):
    """A mapping, as a user's own config might be."""


WRONG_FOR_A_TASK: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_cpu": 1}, OptionError, "no option 'num_cpu' here. Did you mean 'num_cpus'?"),
    ({"zzz": 1}, OptionError, "The options are accelerator_type, "),
    ({"base": 1}, OptionError, "no option 'base'"),
    ({"max_restarts": 1}, OptionError, "only actors restart".capitalize()),
    ({"name": "x"}, OptionError, "A name belongs to an actor"),
    ({"num_cpus": -1}, OptionError, "num_cpus=-1 is negative. Give 0 or more."),
    ({"num_cpus": math.nan}, OptionError, "num_cpus=nan is not a finite number"),
    ({"num_cpus": math.inf}, OptionError, "not a finite number"),
    ({"num_cpus": "2"}, OptionTypeError, "num_cpus='2' is of the type str. A number is right"),
    ({"num_cpus": True}, OptionTypeError, "of the type bool"),
    ({"num_cpus": None}, OptionTypeError, "of the type NoneType"),
    ({"num_gpus": 1.5}, OptionError, "num_gpus=0.5"),
    ({"memory": "4 apples"}, OptionError, 'memory="4GiB"'),
    ({"memory": -1}, OptionError, "negative"),
    ({"memory": 0.5}, OptionTypeError, 'memory="4GiB"'),
    ({"resources": {"CPU": 1}}, OptionError, "Write num_cpus=1"),
    ({"resources": {"disk": -1}}, OptionError, "resources['disk']=-1 is negative"),
    ({"resources": ["disk"]}, OptionTypeError, "A dict of amounts is right"),
    ({"accelerator_type": 4}, OptionTypeError, "Text is right"),
    ({"fallback_strategy": [{"label_selector": {"zone": "b"}}]}, OptionError, "no label_selector to fall back from"),
    ({"label_selector": {"zone": "a"}, "fallback_strategy": {"label_selector": {"zone": "b"}}}, OptionTypeError, "A list is right"),
    ({"label_selector": {"zone": "a"}, "fallback_strategy": [{"zone": "b"}]}, OptionError, "fallback_strategy[0]={'zone': 'b'}"),
    ({"label_selector": {"zone": "a"}, "fallback_strategy": ["b"]}, OptionTypeError, "fallback_strategy[0]='b'"),
    ({"label_selector": {"zone": "a"}, "fallback_strategy": [{"label_selector": {"zone": "in("}}]}, OptionError, "no closing bracket"),
    ({"priority": 1.5}, OptionTypeError, "A whole number is right"),
    ({"scheduling_strategy": "scatter"}, OptionError, '"default", "spread" and af.NodeAffinity'),
    ({"scheduling_strategy": 3}, OptionTypeError, '"default", "spread" and af.NodeAffinity'),
    ({"bundle_index": 2}, OptionError, "no placement group"),
    ({"capture_child_tasks": True}, OptionError, "no placement group"),
    ({"placement_group": "a group"}, OptionTypeError, "What af.placement_group(...) gives"),
    ({"placement_group": GROUP, "bundle_index": 2}, OptionError, "none of its bundles: it has 2, from 0 to 1"),
    ({"placement_group": GROUP, "num_cpus": 3}, OptionError, "3 CPU is asked for in one bundle, and bundle 0 has 2 CPU"),
    ({"placement_group": GROUP, "bundle_index": 1, "num_gpus": 1}, OptionError, "A task takes 1 CPU unless you say num_cpus=0"),
    ({"placement_group": GROUP, "scheduling_strategy": "spread"}, OptionError, "Give them to the group"),
    ({"placement_group": GROUP, "label_selector": {"zone": "a"}}, OptionError, "Give them to the group"),
    ({"num_returns": -1}, OptionError, "Give 0 or more"),
    ({"num_returns": "dynamic"}, OptionTypeError, "A whole number is right"),
    ({"max_retries": -2}, OptionError, "-1 means for ever"),
    ({"max_retries": 1.0}, OptionTypeError, "A whole number is right"),
    ({"retry_exceptions": ValueError}, OptionTypeError, "retry_exceptions=(ConnectionError,)"),
    ({"retry_exceptions": [int]}, OptionTypeError, "not a type of Exception"),
    ({"retry_exceptions": (KeyboardInterrupt,)}, OptionTypeError, "not a type of Exception"),
    ({"max_calls": -1}, OptionError, "0 means any number"),
    ({"timeout": 0}, OptionError, "above 0"),
    ({"timeout": math.nan}, OptionError, "above 0"),
    ({"timeout": "3"}, OptionTypeError, "Seconds are right"),
    ({"runtime_env": 3}, OptionTypeError, "A dict is right"),
    ({"runtime_env": {"env_vars": {"A": "1"}}, "env_vars": {"B": "2"}}, OptionError, "given twice"),
    ({"env_vars": {"A": 1}}, OptionTypeError, "env_vars['A']=1"),
    ({"env_vars": {"A=B": "1"}}, OptionError, "cannot be an environment variable"),
    ({"env_vars": {"": "1"}}, OptionError, "no usable name"),
    ({"env_vars": ["A"]}, OptionTypeError, "Text by name is right"),
    ({"env_vars": {"caf\udce9": "1"}}, OptionError, "is no text that UTF-8 can carry"),
    ({"env_vars": {"A": "caf\udce9"}}, OptionError, "env_vars['A']='caf\\udce9' is no text that UTF-8 can carry"),
    ({"working_dir": "caf\udce9"}, OptionError, "is no text that UTF-8 can carry"),
    ({"resources": {"caf\udce9": 1}}, OptionError, "is no text that UTF-8 can carry"),
    ({"accelerator_type": "caf\udce9"}, OptionError, "is no text that UTF-8 can carry"),
    ({"label_selector": {"zone": "caf\udce9"}}, OptionError, "is not a value of a label"),
    ({"working_dir": 3}, OptionTypeError, "path of a directory"),
    ({"working_dir": ""}, OptionError, "path of a directory"),
]

WRONG_FOR_AN_ACTOR: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_restart": 3}, OptionError, "Did you mean 'max_restarts'?"),
    ({"max_retries": 3}, OptionError, "for an actor: max_restarts and max_task_retries"),
    ({"timeout": 3}, OptionError, "A timeout belongs to a call"),
    ({"name": ""}, OptionError, "is empty"),
    ({"name": 3}, OptionTypeError, "Text is right"),
    ({"get_if_exists": True}, OptionError, 'name="..."'),
    ({"get_if_exists": "yes", "name": "x"}, OptionTypeError, "True or False is right"),
    ({"lifetime": "forever"}, OptionError, "'detached' or None is right"),
    ({"max_concurrency": 0}, OptionError, "Give 1 or more"),
    ({"concurrency_groups": {"io": 0}}, OptionError, "concurrency_groups['io']=0"),
    ({"concurrency_groups": {"": 1}}, OptionError, "no usable name"),
    ({"concurrency_groups": {"caf\udce9": 1}}, OptionError, "is no text that UTF-8 can carry"),
    ({"namespace": "caf\udce9", "name": "x"}, OptionError, "is no text that UTF-8 can carry"),
    ({"concurrency_groups": ["io"]}, OptionTypeError, 'concurrency_groups={"io": 2}'),
    ({"max_pending_calls": 0}, OptionError, "-1 means any number"),
    ({"process": "thread"}, OptionError, "'dedicated' or 'shared' is right"),
    ({"process": 3}, OptionTypeError, "'dedicated' or 'shared' is right"),
    ({"checkpoint_every": "hour"}, OptionError, '"call"'),
    ({"checkpoint_every": -1}, OptionError, "above 0"),
    ({"checkpoint_every": 0}, OptionError, 'Give a number of seconds above 0, or "call", or None for no checkpoints.'),
    ({"scheduling_strategy": NodeAffinity("")}, OptionError, "node_id='' is empty. Give the id of a node"),
]

NOT_YET: list[tuple[dict[str, Any], str]] = [
    ({"runtime_env": {"pip": ["numpy"]}}, "'pip' is not supported yet"),
    ({"working_dir": "s3://bucket/job.zip"}, "only directories of this machine"),
]


@pytest.mark.parametrize(("given", "kind", "text"), WRONG_FOR_A_TASK, ids=str)
def test_a_wrong_task_option_is_refused(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        task_options(None, WHERE, given)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert text in str(caught.value)
    assert caught.value.option.partition("[")[0] in {*given, "env_vars"}


@pytest.mark.parametrize(("given", "kind", "text"), WRONG_FOR_AN_ACTOR, ids=str)
def test_a_wrong_actor_option_is_refused(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        actor_options(None, "class Counter(af.Actor)", given)
    assert type(caught.value) is kind
    assert text in str(caught.value)


@pytest.mark.parametrize(("given", "text"), NOT_YET, ids=str)
def test_what_comes_later_says_so(given: dict[str, Any], text: str) -> None:
    with pytest.raises(NotYetSupportedError) as caught:
        task_options(None, WHERE, given)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert text in str(caught.value)


@pytest.mark.parametrize("given", [{"num_cpus": 1}, {"timout": 3}, {"interruptible": 1}, {"num_returns": -1}])
def test_a_wrong_method_option_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        method_options(None, "@af.method on Counter.add", given)


def test_the_defaults_are_those_of_the_design() -> None:
    task, actor, method = face.DEFAULT_TASK, face.DEFAULT_ACTOR, face.DEFAULT_METHOD
    assert (task.num_cpus, task.max_retries, task.num_returns, task.timeout) == (1, 3, 1, None)
    assert task.resources == {"CPU": 10_000}
    assert (actor.num_cpus, actor.max_restarts, actor.max_task_retries) == (0, 0, 0)
    assert (actor.resources, actor.max_pending_calls, actor.process) == ({}, -1, "dedicated")
    assert (actor.concurrency(is_async=False), actor.concurrency(is_async=True)) == (1, 1000)
    assert (method.concurrency_group, method.max_task_retries, method.interruptible) == ("", None, False)


def test_resources_are_in_fixed_point() -> None:
    given = {"num_cpus": 0.5, "num_gpus": 2, "memory": "4GiB", "resources": {"disk": 0.1}}
    options = task_options(None, WHERE, given)
    assert options.resources == {"CPU": 5_000, "GPU": 20_000, "memory": (4 << 30) * 10_000, "disk": 1_000}
    assert task_options(None, WHERE, {"num_cpus": 0}).resources == {}
    assert task_options(None, WHERE, {"accelerator_type": "A100"}).resources["accelerator_type:A100"] == 10


def test_the_environment_is_json(tmp_path: Path) -> None:
    short = task_options(None, WHERE, {"env_vars": {"B": "2", "A": "1"}, "working_dir": tmp_path})
    long = task_options(
        None, WHERE, {"runtime_env": {"env_vars": {"A": "1", "B": "2"}, "working_dir": str(tmp_path)}}
    )
    assert short.env == long.env
    assert json.loads(short.env) == {"env_vars": {"A": "1", "B": "2"}, "working_dir": str(tmp_path)}
    assert face.DEFAULT_TASK.env == ""
    relative = task_options(None, WHERE, {"working_dir": "job"})
    assert json.loads(relative.env)["working_dir"] == os.path.abspath("job")


def test_only_equal_needs_share_a_lease_class() -> None:
    default = face.DEFAULT_TASK
    for given in (
        {"num_cpus": 2},
        {"priority": 1},
        {"env_vars": {"A": "1"}},
        {"scheduling_strategy": "spread"},
    ):
        assert task_options(None, WHERE, given).scheduling_key != default.scheduling_key
    for same in ({"max_retries": 0}, {"timeout": 3}, {"num_returns": 2}, {"num_cpus": 1.0}):
        assert task_options(None, WHERE, same).scheduling_key == default.scheduling_key


def test_a_gpu_task_ends_its_worker_by_default() -> None:
    assert task_options(None, WHERE, {"num_gpus": 1}).calls_max == 1
    assert task_options(None, WHERE, {"num_gpus": 1, "max_calls": 0}).calls_max == 0
    assert face.DEFAULT_TASK.calls_max == 0


def test_equal_options_are_one_object() -> None:
    given = {"num_cpus": 2, "max_retries": 0}
    once, again = task_options(None, WHERE, given), task_options(None, WHERE, dict(given))
    assert once is again
    assert task_options(once, WHERE, {}) is once
    assert hash(once) == hash(again)
    # 1 == True, and only one of them is a number of CPUs.
    task_options(None, WHERE, {"num_cpus": 1})
    with pytest.raises(OptionTypeError):
        task_options(None, WHERE, {"num_cpus": True})


def test_options_keep_nothing_that_the_user_may_change() -> None:
    variables = NotHashable(A="1")
    options = task_options(None, WHERE, {"env_vars": variables})
    variables["A"] = "2"
    assert options.env_vars == {"A": "1"}
    assert task_options(None, WHERE, {"env_vars": variables}).env_vars == {"A": "2"}


def test_options_build_on_options() -> None:
    base = task_options(None, WHERE, {"num_cpus": 2, "env_vars": {"A": "1"}})
    options = task_options(base, "square.options()", {"max_retries": 0})
    assert (options.num_cpus, options.max_retries, options.env) == (2, 0, base.env)


def test_options_are_frozen_and_travel() -> None:
    options = task_options(None, WHERE, {"num_cpus": 2, "retry_exceptions": [OSError]})
    with pytest.raises(AttributeError):
        options.num_cpus = 3  # type: ignore[misc]  # the act under test
    copy = pickle.loads(pickle.dumps(options))
    assert (copy.resources, copy.scheduling_key) == (options.resources, options.scheduling_key)
    assert copy.retry_exceptions == (OSError,)


def test_placement_on_one_node() -> None:
    assert task_options(None, WHERE, {"scheduling_strategy": "SPREAD"}).scheduling_strategy == "spread"
    affinity = NodeAffinity("node-1", soft=True)
    assert task_options(None, WHERE, {"scheduling_strategy": affinity}).scheduling_strategy is affinity
    nothing = {"placement_group": None, "label_selector": {}, "bundle_index": -1, "runtime_env": None}
    assert task_options(None, WHERE, nothing).resources == face.DEFAULT_TASK.resources


def test_a_shared_actor_has_no_cpu_of_its_own() -> None:
    """SEMANTICS 22."""
    for given in ({"num_cpus": 1}, {"num_gpus": 0.5}):
        with pytest.raises(OptionError, match="cannot have CPUs or GPUs"):
            actor_options(None, "class Board(af.Actor)", {"process": "shared", **given})


@pytest.mark.parametrize(
    ("keywords", "checks"),
    [
        (face.TaskKeywords, face.TASK_CHECKS),
        (face.ActorKeywords, face.ACTOR_CHECKS),
        (face.MethodKeywords, face.METHOD_CHECKS),
    ],
)
def test_type_checkers_know_the_same_options(keywords: type, checks: dict[str, Any]) -> None:
    assert set(get_type_hints(keywords, localns={"PlacementGroup": PlacementGroup})) == set(checks)
