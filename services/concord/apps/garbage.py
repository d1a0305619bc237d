"""Keeps Python's collector of garbage from going through everything that was imported, again and again."""

from __future__ import annotations

import gc


def settle() -> None:
    """Whatever is there now stays: call once a process is set up, before it serves.

    A full collection looks at each of the half million objects that torch and its like bring along, which takes a tenth
    of a second during which nobody is answered.
    """
    gc.collect()
    gc.freeze()
