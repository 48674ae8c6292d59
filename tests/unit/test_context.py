"""`af.context` by itself: nesting, what it refuses, and the span that goes along (SEMANTICS 8)."""

from __future__ import annotations

import asyncio
import enum
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import actorflow as af
from actorflow._context import BYTES_MAX
from actorflow._core.worker.context import TRACER, TRACESTATE_CHARS_MAX, declared, declared_values


def test_8_blocks_nest_and_the_inner_one_wins() -> None:
    assert (dict(af.context.current()), af.context.get("tenant")) == ({}, None)
    with af.context(tenant="a", request_id="7"):
        with af.context(tenant="b", **{"x-more": "1"}):
            assert dict(af.context.current()) == {"tenant": "b", "request_id": "7", "x-more": "1"}
            assert af.context.get("tenant") == af.context.get("tenant", "none") == "b"
        assert dict(af.context.current()) == {"tenant": "a", "request_id": "7"}
        assert af.context.get("x-more", "none") == "none"
        assert "tenant" in repr(af.context)
    assert dict(af.context.current()) == {}


def test_a_block_is_left_by_an_error_too() -> None:
    with pytest.raises(LookupError):
        with af.context(tenant="a"):
            raise LookupError
    assert declared.get() is None


def test_a_block_may_be_entered_again_and_not_twice_at_once() -> None:
    block = af.context(tenant="a")
    for _ in range(2):
        with block:
            assert af.context.get("tenant") == "a"
            with pytest.raises(RuntimeError, match="anew for each `with`"):
                block.__enter__()
    assert declared.get() is None


def test_what_is_declared_cannot_be_changed() -> None:
    with af.context(tenant="a"):
        mapping: Any = af.context.current()
        with pytest.raises(TypeError):
            mapping["tenant"] = "b"
        assert af.context.get("tenant") == "a"


async def test_each_task_of_a_loop_has_its_own() -> None:
    async def work(tenant: str) -> str | None:
        with af.context(tenant=tenant):
            await asyncio.sleep(0)
            return af.context.get("tenant")

    assert await asyncio.gather(work("a"), work("b"), work("c")) == ["a", "b", "c"]
    assert af.context.get("tenant") is None


@pytest.mark.parametrize("value", [7, None, b"a", ["a"]])
def test_8_a_value_that_is_no_text_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(af.OptionTypeError, match=r"request_id=.*only text travels.*str\(") as caught:
        af.context(tenant="a", request_id=value)
    assert caught.value.option == "request_id"
    assert type(value).__name__ in str(caught.value)


def test_a_value_that_has_no_form_in_utf_8_is_refused() -> None:
    with pytest.raises(af.OptionError, match="tenant=.*UTF-8") as caught:
        af.context(tenant="a\ud800")
    assert caught.value.option == "tenant"


def test_what_is_derived_from_text_travels_as_text() -> None:
    class Tenant(enum.StrEnum):
        A = "a"

    with af.context(tenant=Tenant.A):
        assert type(af.context.get("tenant")) is str
        assert af.context.get("tenant") == "a"


def test_8_all_blocks_together_are_bounded() -> None:
    with af.context(a="x" * (BYTES_MAX - 1)):
        with pytest.raises(af.OptionError, match=f"holds {BYTES_MAX + 3} bytes.*at most {BYTES_MAX}") as caught:
            with af.context(b="ü"):
                pass
        assert caught.value.option == "a"
        with af.context(a="x"):  # What replaces counts alone.
            assert af.context.get("a") == "x"
    assert declared.get() is None


# The span of OpenTelemetry ----------------------------------------------------------------------------------


class Span:
    """What the API of OpenTelemetry promises of a span context."""

    def __init__(self, *, is_valid: bool = True, state: str = "") -> None:
        self.is_valid = is_valid
        self.trace_id, self.span_id, self.trace_flags = 0xABC, 0xD, 1
        self.trace_state = SimpleNamespace(to_header=lambda: state)

    def get_span_context(self) -> Span:
        return self


TRACEPARENT = "00-00000000000000000000000000000abc-000000000000000d-01"


@pytest.fixture
def current_span(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """The API as it is in `sys.modules` once a program has imported it; the last of the list is current."""
    spans = [Span(is_valid=False)]
    tracer: Any = ModuleType(TRACER)
    tracer.get_current_span = lambda: spans[-1]
    monkeypatch.setitem(sys.modules, TRACER, tracer)
    return spans


def test_8_without_opentelemetry_and_without_a_span_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, TRACER, raising=False)
    assert declared_values() is None
    with af.context(traceparent="mine"):
        assert declared_values() == {"traceparent": "mine"}


def test_8_no_valid_span_adds_nothing(current_span: list[Span]) -> None:
    assert declared_values() is None
    with af.context(tenant="a"):
        assert declared_values() is declared.get()


def test_8_the_current_span_goes_along_and_replaces_what_came_with_the_call(current_span: list[Span]) -> None:
    current_span.append(Span(state="vendor=1"))
    assert declared_values() == {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    current_span.append(Span())
    with af.context(tenant="a", traceparent="older", tracestate="older"):
        assert declared_values() == {"tenant": "a", "traceparent": TRACEPARENT}
        assert af.context.get("traceparent") == "older"


def test_a_tracestate_that_nobody_must_pass_on_is_left_out(current_span: list[Span]) -> None:
    current_span.append(Span(state="v=" + "x" * TRACESTATE_CHARS_MAX))
    assert declared_values() == {"traceparent": TRACEPARENT}
