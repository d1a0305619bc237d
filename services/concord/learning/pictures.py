"""What the inputs of a task are pictures of, so that a picture in a file can become one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PictureForm:
    """`channels` is 1 for grey or 3 for red, green and blue; a sample has them one after the other, row by row.

    `white` is the value of a white pixel, and black is 0: 255 where the model scales pixels itself.
    """

    channels: int
    height: int
    width: int
    white: float = 255.0
