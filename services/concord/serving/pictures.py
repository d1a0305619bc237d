"""Pictures in files, PNG or JPEG, as the inputs of a model. Needs Pillow, which is an extra; knows no HTTP.

A file from a stranger may unfold to far more than its size, so its pixels are counted before they are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concord.errors import InputError, MediaTypeError
from concord.learning.pictures import PictureForm

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 16 << 20
"""Of one picture, before it is made smaller: a decoded one then takes up to 64 MiB for a moment."""
MAX_PICTURES = 64
"""Of one request."""

_MODES = {1: "L", 3: "RGB"}
_DEEP = ("I", "F")
"""How modes begin whose pixels are of more than eight bits."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Files that still have to be decoded, which takes too long for an event loop; `field` is for errors."""

    files: Sequence[bytes | memoryview]
    form: PictureForm
    field: str

    def decode(self, row: tuple[int, ...]) -> Tensor:
        """All of them as (n, *row) float32; InputError if one is not a picture."""
        return torch.stack([decode(bytes(file), self.form, self.field).view(row) for file in self.files])


def decode(file: bytes, form: PictureForm, field: str) -> Tensor:
    """One picture, stretched to the form's size and in its colours, as (channels, height, width) float32.

    InputError naming `field` if it is neither PNG nor JPEG, torn, over MAX_PIXELS, or of more than eight bits a colour;
    MediaTypeError if Pillow is not there to look.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MediaTypeError(field, "numbers: this site lacks Pillow (pip install 'concord-edge[pictures]')") from None
    try:
        with Image.open(BytesIO(file), formats=FORMATS) as image:
            pixels = _pixels(image, form, field)
    except InputError:
        raise
    except Exception as error:  # whatever decoders make of the bytes of a stranger
        raise InputError(field, f"a whole picture, PNG or JPEG ({error})") from error
    shown = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(form.height, form.width, form.channels)
    return shown.permute(2, 0, 1).to(torch.float32) * (form.white / 255)


def _pixels(image: Image, form: PictureForm, field: str) -> bytes:
    from PIL import ImageOps
    from PIL.Image import Resampling

    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(field, f"a picture of at most {MAX_PIXELS} pixels, not {width} x {height}")
    if image.mode.startswith(_DEEP):
        raise InputError(field, f"a picture of eight bits a colour, not of mode {image.mode}")
    mode, size = _MODES[form.channels], (form.width, form.height)
    image.draft(mode, size)  # a JPEG is decoded no larger than it has to be
    upright = ImageOps.exif_transpose(image)
    return upright.convert(mode).resize(size, Resampling.BILINEAR).tobytes()
