"""What to say about a name that is not known: the nearest one that is. Knows no algorithm and no graph."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a person: what is not known, the nearest known name, and all of them."""
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(names)}"
