"""Classes that travel by value and have `__slots__`: they arrive with the layout that they have here.

cloudpickle makes such a class anew from a skeleton, which it fills afterwards. Its skeleton has no `__slots__` (3.1), and a class takes
its layout when it is made and at no other time: so the class that arrives has a `__dict__` in place of its slots. Its instances keep
their values there, come back with a state that the real class has no place for, and cannot be rebuilt.

Here the skeleton gets the slots that the class really has. The rest stays cloudpickle's: what makes the class, what fills it, and which
one it is (a class that arrives twice is one class).
"""

from __future__ import annotations

from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as made_by

_LAYOUT = ("__dict__", "__weakref__")
"""Slots by which a class gives its instances a dict and weak references."""


class SlotsPickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """cloudpickle's, but for the layout of slotted classes."""

    def reducer_override(self, obj: Any) -> Any:
        """How to pickle a class or a function; NotImplemented for all the rest, which is asked here too."""
        # It is asked for each object of a pickle: most of them are told here what cloudpickle would tell them, without a second call.
        if not issubclass(type(obj), type) and not isinstance(obj, FunctionType):
            return NotImplemented
        reduced = super().reducer_override(obj)
        if type(reduced) is tuple and reduced[0] is made_by._make_skeleton_class and "__slots__" in vars(obj) and not _is_named_tuple(obj):
            return _with_slots(obj, reduced)
        return reduced


def slots_of(cls: type) -> tuple[str, ...]:
    """What `cls` itself adds to the layout of its bases, as names for `__slots__`.

    Read from its descriptors and not from its `__slots__`: those may have been written after the class was made, and names that begin with
    two underscores are mangled in the class, but not there.
    """
    return tuple(
        name
        for name, value in sorted(vars(cls).items())
        if (_is_slot(cls, name, value) if name not in _LAYOUT else type(value) is GetSetDescriptorType)
    )


def _is_slot(cls: type, name: str, value: object) -> bool:
    return type(value) is MemberDescriptorType and value.__objclass__ is cls and value.__name__ == name


def _is_named_tuple(cls: type) -> bool:
    """True for a class that names `NamedTuple` as its base. That makes its slots, which are none, and refuses to be told of them."""
    return any(getattr(base, "__name__", "") == "NamedTuple" and not isinstance(base, type) for base in vars(cls).get("__orig_bases__", ()))


def _with_slots(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    make, (metaclass, name, bases, namespace, *identity), (attributes, more), *rest = reduced
    # Copies of the names, as cloudpickle makes them of all names of a class: else the pickle of a class that has travelled differs
    # from the first one, as pickle tells strings that are the same object from such that are only equal.
    slots = tuple("".join(iter(slot)) for slot in slots_of(cls))
    for slot in slots:
        # Making the class makes its descriptors. cloudpickle overlooks mangled ones, and those of slots which it does not find.
        if _is_slot(cls, slot, attributes.get(slot)):
            del attributes[slot]
    # As it was written, in place of what the skeleton was made with. cloudpickle leaves it out where a base has the same object.
    attributes.setdefault("__slots__", vars(cls)["__slots__"])
    return make, (metaclass, name, bases, {**namespace, "__slots__": slots}, *identity), (attributes, more), *rest
