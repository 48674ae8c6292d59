"""Model serving on actorflow: what is coming, and nothing of it is there yet.

Planned: deployments written as async classes, composed with typed handles, scaled between bounds, batched
and multiplexed, behind an HTTP ingress that takes any ASGI or aiohttp application. The package is an empty
face until then: asking it for a planned name raises an AttributeError that says so.
"""

from typing import TYPE_CHECKING, Final, NoReturn

__all__: list[str] = []

_PLANNED: Final = frozenset(
    {
        # deployments
        "Deployment",
        "Handle",
        "batch",
        "deployment",
        "ingress",
        "multiplexed",
        # applications
        "delete",
        "run",
        "status",
    }
)

# Type checkers must not see this function: with it they would take every name for an existing one.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        if name in _PLANNED:
            raise AttributeError(
                f"{__name__}.{name} is not built yet; this version of actorflow has tasks and actors only "
                "(`import actorflow`). CHANGELOG.md says what each version brings.",
                name=name,
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
