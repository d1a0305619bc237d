"""Pictures in files become the inputs that a task's own data have, and nothing else gets through."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from concord.apps.uploads import picture_in
from concord.errors import BodyError, InputError, MediaTypeError
from concord.learning.pictures import PictureForm
from concord.learning.task import TaskSpec, resolve_task
from concord.learning.tasks import digits
from concord.serving.pictures import MAX_PIXELS, decode

GREY, COLOUR = PictureForm(1, 2, 3), PictureForm(3, 2, 3)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge(side: int) -> bytes:
    """A PNG of few bytes that says it has side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pixels_of_the_right_size_come_through_unchanged() -> None:
    grey = Image.frombytes("L", (3, 2), bytes([0, 1, 2, 253, 254, 255]))
    assert decode(file_of(grey), GREY, "x").tolist() == [[[0, 1, 2], [253, 254, 255]]]
    colour = Image.frombytes("RGB", (3, 2), bytes(range(18)))
    assert torch.equal(decode(file_of(colour), COLOUR, "x"), torch.arange(18.0).view(2, 3, 3).permute(2, 0, 1))


def test_a_sample_of_the_digits_as_a_file_is_the_sample() -> None:
    task = resolve_task(TaskSpec(name="digits"))
    assert task.picture is not None
    sample = digits.load_pool().test.inputs[0]
    pixels = bytes((sample * 255).round().to(torch.uint8).tolist())
    found = decode(file_of(Image.frombytes("L", (8, 8), pixels)), task.picture, "x").view(task.input_shape)
    torch.testing.assert_close(found, sample, atol=1 / 510 + 1e-6, rtol=0)


@pytest.mark.parametrize("name", ["digits", "cifar10", "fashion-mnist", "chest-xray"])
def test_the_form_of_a_task_has_as_many_values_as_its_inputs(name: str) -> None:
    task = resolve_task(TaskSpec(name=name))
    form = task.picture
    assert form is not None
    assert form.channels * form.height * form.width == torch.Size(task.input_shape).numel()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("form", [GREY, COLOUR])
def test_pictures_of_any_size_and_colours_are_fitted(mode: str, form: PictureForm) -> None:
    image = Image.new("RGB", (40, 70), (255, 255, 255)).convert(mode)
    found = decode(file_of(image, "JPEG" if mode == "CMYK" else "PNG"), form, "x")
    assert found.shape == (form.channels, 2, 3)
    assert found.min() >= 250


def test_a_photograph_taken_on_its_side_is_turned() -> None:
    image = Image.new("L", (20, 20))
    image.paste(255, (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = decode(file_of(image, "JPEG", exif=exif, quality=100), PictureForm(1, 2, 1), "x")
    assert found[0, 0, 0] < 100
    assert found[0, 1, 0] > 150


BAD: dict[str, bytes] = {
    "nothing": b"",
    "text": b'{"inputs": [1]}',
    "torn": file_of(Image.new("L", (50, 50)))[:-20],
    "another kind": file_of(Image.new("L", (5, 5)), "GIF"),
    "sixteen bits": file_of(Image.new("I;16", (5, 5))),
    "a bomb": huge(int(MAX_PIXELS**0.5) + 1),
    "a great bomb": huge(60_000),
}


@pytest.mark.parametrize("file", BAD.values(), ids=BAD)
def test_what_is_no_picture_or_too_large_is_refused(file: bytes) -> None:
    with pytest.raises(InputError) as error:
        decode(file, GREY, "body")
    assert error.value.field == "body"


WHOLE = file_of(Image.frombytes("RGB", (9, 9), bytes(range(243))))


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_changed_bytes_are_refused_or_are_another_picture(place: int, change: bytes) -> None:
    changed = WHOLE[:place] + change + WHOLE[place + len(change) :]
    try:
        found = decode(changed, COLOUR, "x")
    except InputError:
        return
    assert found.shape == (3, 2, 3)


FORM = (
    b'--B\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n" + WHOLE + b"\r\n--B--\r\n"
)
FORM_TYPE = "multipart/form-data; boundary=B"


def test_a_picture_is_the_body_or_the_one_file_of_a_form() -> None:
    assert picture_in(WHOLE, "image/PNG; charset=none") == WHOLE
    assert picture_in(FORM, FORM_TYPE) == WHOLE


REFUSED: dict[str, tuple[bytes, str, type[InputError]]] = {
    "another type": (WHOLE, "image/tiff", MediaTypeError),
    "no boundary": (FORM, "multipart/form-data", BodyError),
    "another boundary": (FORM, "multipart/form-data; boundary=C", BodyError),
    "torn": (FORM[:-20], FORM_TYPE, BodyError),
    "no file": (FORM[: FORM.index(b"--B\r\n", 5)] + b"--B--\r\n", FORM_TYPE, BodyError),
    "two files": (FORM[: -len(b"--B--\r\n")] + FORM, FORM_TYPE, BodyError),
    "many parts": (b"--B\r\nA: b\r\n\r\nc\r\n" * 20 + b"--B--\r\n", FORM_TYPE, BodyError),
}


@pytest.mark.parametrize(("body", "kind", "error"), REFUSED.values(), ids=REFUSED)
def test_other_bodies_are_refused(body: bytes, kind: str, error: type[InputError]) -> None:
    with pytest.raises(error):
        picture_in(body, kind)


@given(st.binary(max_size=80), st.text(st.characters(max_codepoint=255), max_size=20))
def test_no_body_whatever_does_more_than_be_refused(body: bytes, boundary: str) -> None:
    check: Callable[[], bytes] = lambda: picture_in(b"--B\r\n" + body, f"multipart/form-data; boundary={boundary}")  # noqa: E731
    try:
        check()
    except InputError:
        return
