"""What the running code is: which call of which actor, how long it may still run, and what was declared around it."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import Any

import msgspec


class RunningCall(msgspec.Struct, eq=False, gc=False):
    """One call that runs in this process. A struct, and none of the collector's business: each call makes one, and many are kept."""

    owner: str
    seq: int
    attempt: int
    name: str
    actor_id: str
    deadline: float | None
    cancelled: bool = False
    """What `af.check_cancelled()` looks at."""
    blocked: int = 0
    """How many of its awaits wait for other results."""
    children: list[int] | None = None
    """The calls that it has made, by the numbers of their first results; those that have ended are taken out now and then."""
    children_max: int = 64
    """When the next look for ended ones is due."""


running_call: ContextVar[RunningCall | None] = ContextVar("actorflow_running_call", default=None)
"""The call that the running code belongs to; None in a driver's own code."""

deadline: ContextVar[float | None] = ContextVar("actorflow_deadline", default=None)
"""When the innermost `af.timeout` or timed call ends, on this process's monotonic clock (SEMANTICS 7)."""

declared: ContextVar[dict[str, str] | None] = ContextVar("actorflow_declared", default=None)
"""What `af.context` declares for the calls that are made here (SEMANTICS 8). Replaced, never changed."""

CAPTURED = "actorflow.placement_group"
"""What is declared for the children of code that captures them: the placement group they run in (worker/captured.py)."""

_modules = sys.modules
TRACER = "opentelemetry.trace"
TRACESTATE_CHARS_MAX = 512
"""What W3C asks everybody to pass on; a longer one is left out."""


def declared_values() -> dict[str, str] | None:
    """What a call that is made now takes along: `af.context`, and the span of OpenTelemetry that is current, if any."""
    if TRACER in _modules:
        return _with_span(_modules[TRACER], declared.get())
    return declared.get()


def _with_span(tracer: Any, values: dict[str, str] | None) -> dict[str, str] | None:
    """The current span is newer than a trace context that came with the running call, and replaces it."""
    span = tracer.get_current_span().get_span_context()
    if not span.is_valid:
        return values
    values = {key: value for key, value in (values or {}).items() if key not in ("traceparent", "tracestate")}
    values["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    state = span.trace_state.to_header()
    if state and len(state) <= TRACESTATE_CHARS_MAX:
        values["tracestate"] = state
    return values
