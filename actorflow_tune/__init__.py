"""Hyperparameter search on actorflow: what is coming, and nothing of it is there yet.

Planned: a Tuner that runs many trials at once as actors, search spaces and searchers on Optuna, schedulers
that stop, pause and promote (ASHA, HyperBand, PBT, PB2, median), stoppers, callbacks, and a restore that
forgets nothing. The package is an empty face until then: asking it for a planned name raises an
AttributeError that says so.
"""

from typing import TYPE_CHECKING, Final, NoReturn

__all__: list[str] = []

_PLANNED: Final = frozenset(
    {
        "Tuner",
        "report",
        # search space
        "choice",
        "grid_search",
        "lograndint",
        "loguniform",
        "qlograndint",
        "qloguniform",
        "qrandint",
        "qrandn",
        "quniform",
        "randint",
        "randn",
        "sample_from",
        "uniform",
        # schedulers
        "ASHAScheduler",
        "HyperBandScheduler",
        "MedianStoppingRule",
        "PB2",
        "PopulationBasedTraining",
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
