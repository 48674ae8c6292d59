"""What a simulation raises: it got stuck, something in it failed, or an invariant does not hold."""

from __future__ import annotations


class SimulationError(Exception):
    """The root of what `actorflow.testing` raises."""


class SimulationStuck(SimulationError):
    """What was waited for cannot happen, or did not within its bounds. The message shows who waits where."""


class SimulationFailed(SimulationError):
    """Code of a simulated process let an exception escape; it is the `__cause__`."""


class SimulationMisuse(SimulationError):
    """Simulated code did what cannot work between real processes or threads, or asked for the real world."""


class InvariantBroken(SimulationError, AssertionError):
    """A checker found at least one violation; the message lists them."""
