"""Datasets on actorflow: what is coming, and nothing of it is there yet.

Planned: lazy datasets over Arrow blocks, read from Parquet, CSV, JSON, text, images, NumPy, WebDataset, SQL
and more; transformed by expressions and batched functions; consumed with `async for` or plain `for` by a
program or a training loop, with back-pressure all the way. The package is an empty face until then: asking
it for a planned name raises an AttributeError that says so.
"""

from typing import TYPE_CHECKING, Final, NoReturn

__all__: list[str] = []

_PLANNED: Final = frozenset(
    {
        # sources
        "from_arrow",
        "from_huggingface",
        "from_items",
        "from_pandas",
        "from_torch",
        "range",
        "read_binary",
        "read_csv",
        "read_images",
        "read_json",
        "read_numpy",
        "read_parquet",
        "read_sql",
        "read_text",
        "read_webdataset",
        # expressions
        "col",
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
