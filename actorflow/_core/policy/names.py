"""Names of actors, or of placement groups: in each namespace a name is held by at most one that is not dead."""

from __future__ import annotations

from itertools import islice

from actorflow._core.base.errors import InternalError

NEAR_MAX = 3
"""How many similar names an error shows."""

NEAR_SCAN_MAX = 10_000
"""How many names (or namespaces) a miss looks at, so that a typo never costs more than a few milliseconds."""

NEAR_CANDIDATES_MAX = 200
"""How many of them are compared letter by letter."""


class NameBook:
    """Who has which name. `noun` is what the holders are called in errors.

    NM-1: a name has at most one holder; it is free again only when that one gives it back.
    """

    __slots__ = ("_noun", "_spaces")

    def __init__(self, noun: str = "actor") -> None:
        self._noun = noun
        self._spaces: dict[str, dict[str, str]] = {}

    def find(self, namespace: str, name: str) -> str | None:
        """The id of who holds `name`, or None."""
        space = self._spaces.get(namespace)
        return space.get(name) if space is not None else None

    def take(self, namespace: str, name: str, holder_id: str) -> None:
        """Give `name` to this one; the caller has seen that it is free."""
        space = self._spaces.setdefault(namespace, {})
        holder = space.setdefault(name, holder_id)
        if holder != holder_id:
            raise InternalError(
                f"NM-1: the name {name!r} in namespace {namespace!r} was given to {self._noun} {holder_id}, but {holder} holds it"
            )

    def free(self, namespace: str, name: str, holder_id: str) -> None:
        """Take the name back from the one that holds it."""
        space = self._spaces.get(namespace, {})
        holder = space.pop(name, None)
        if holder != holder_id:
            raise InternalError(
                f"NM-1: {self._noun} {holder_id} gave back the name {name!r} in namespace {namespace!r}, which {holder} holds"
            )
        if not space:
            del self._spaces[namespace]

    def near(self, namespace: str, name: str) -> list[str]:
        """Names in this namespace that look like `name`, the most similar first: for "did you mean"."""
        wanted = name.casefold()
        candidates: dict[str, str] = {}
        for known in islice(self._spaces.get(namespace, {}), NEAR_SCAN_MAX):
            folded = known.casefold()
            if folded == wanted:
                return [known]
            alike = abs(len(folded) - len(wanted)) <= 3 and folded[:1] == wanted[:1]
            if alike or wanted in folded or folded in wanted:
                candidates.setdefault(folded, known)
                if len(candidates) == NEAR_CANDIDATES_MAX:
                    break
        import difflib  # Slow to import, and seldom needed.

        return [candidates[match] for match in difflib.get_close_matches(wanted, candidates, NEAR_MAX, 0.5)]

    def elsewhere(self, namespace: str, name: str) -> list[str]:
        """Other namespaces that have exactly this name: the usual reason why a name is not found."""
        spaces = islice(self._spaces.items(), NEAR_SCAN_MAX)
        return list(islice((space for space, names in spaces if space != namespace and name in names), NEAR_MAX))
