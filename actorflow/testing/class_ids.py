"""What classes that travel by value are called, under simulation.

cloudpickle marks each of them with a random number, so that who gets one twice knows it again. The mark is part of what is sent, and so of
the digest of a run: here it is made of the name of the class. Classes of one name are counted: those that a function makes anew for each
run differ from run to run, as they do outside. A cloudpickle that marks them in another way is left as it is: a run is the same then too,
and only the digests of two processes differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from cloudpickle import cloudpickle as made_by

_counts: dict[str, int] = {}
"""How many classes of each name have got a mark, in this process."""


_MARKS = "_get_or_create_tracker_id"
_KNOWN = all(hasattr(made_by, name) for name in (_MARKS, "_DYNAMIC_CLASS_TRACKER_LOCK", "_DYNAMIC_CLASS_TRACKER_BY_CLASS"))


@contextmanager
def named_marks() -> Iterator[None]:
    """Within this block classes get these marks."""
    if not _KNOWN:
        yield
        return
    before = getattr(made_by, _MARKS)
    setattr(made_by, _MARKS, _mark_of)
    try:
        yield
    finally:
        setattr(made_by, _MARKS, before)


def _mark_of(definition: type) -> str:
    """In place of cloudpickle's function of the same purpose. One that has a mark keeps it."""
    with made_by._DYNAMIC_CLASS_TRACKER_LOCK:
        mark: str | None = made_by._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(definition)
        if mark is None:
            name = f"{definition.__module__}.{definition.__qualname__}"
            number = _counts[name] = _counts.get(name, 0) + 1
            mark = blake2b(f"{name}/{number}".encode(), digest_size=16).hexdigest()
            made_by._DYNAMIC_CLASS_TRACKER_BY_CLASS[definition] = mark
            made_by._DYNAMIC_CLASS_TRACKER_BY_ID[mark] = definition
        return mark
