"""Names the nearest known word, so that every error about an unknown name says what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None if none is like it; case and `_` against `-` do not count."""
    plain = {_plain(name): name for name in known}
    found = get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: the nearest known one if there is one, else all of them."""
    names = sorted(known)
    guess = nearest(word, names)
    hint = f"did you mean '{guess}'?" if guess else f"known: {', '.join(names)}"
    return f"unknown {what} '{word}'; {hint}"


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")
