"""Distributed training on actorflow: what is coming, and nothing of it is there yet.

Planned: trainers that run a plain training loop on a gang of actors (PyTorch first, then TensorFlow, JAX,
XGBoost, LightGBM, Lightning and Transformers), with reports, checkpoints, failure handling and dataset
shards. The package is an empty face until then: asking it for a planned name raises an AttributeError that
says so.
"""

from typing import TYPE_CHECKING, Final, NoReturn

__all__: list[str] = []

_PLANNED: Final = frozenset(
    {
        # trainers
        "JaxTrainer",
        "LightGBMTrainer",
        "TensorflowTrainer",
        "TorchTrainer",
        "XGBoostTrainer",
        # configuration
        "Checkpoint",
        "CheckpointConfig",
        "FailureConfig",
        "RunConfig",
        "ScalingConfig",
        # inside a training loop
        "get_checkpoint",
        "get_context",
        "get_dataset_shard",
        "prepare_data_loader",
        "prepare_model",
        "report",
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
