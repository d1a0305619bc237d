"""A picture in the body of a request: the body itself, or a file of a form as browsers and curl send it.

Needs python-multipart for forms, which is an extra.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from concord.errors import BodyError, MediaTypeError

PICTURE_TYPES = ("image/png", "image/jpeg")
FORM_TYPE = "multipart/form-data"
_MAX_PARTS = 16

# It would write a line for each wrong byte of whatever a stranger sends.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def media_type(content_type: str) -> str:
    """`image/png` of `Image/PNG; name=x`."""
    return content_type.partition(";")[0].strip().lower()


def picture_in(body: bytes, content_type: str) -> bytes:
    """The one file in a body of one of the PICTURE_TYPES, or of FORM_TYPE; BodyError if there is not exactly one."""
    kind = media_type(content_type)
    if kind != FORM_TYPE:
        if kind not in PICTURE_TYPES:
            raise MediaTypeError("Content-Type", f"application/json, {FORM_TYPE}, {' or '.join(PICTURE_TYPES)}")
        return body
    files = [part.data for part in _parts(body, content_type) if b"filename" in part.options]
    if len(files) != 1:
        raise BodyError("body", f"a form with one file, not {len(files)}")
    return bytes(files[0])


@dataclass(slots=True)
class _Part:
    data: bytearray = field(default_factory=bytearray)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    options: dict[bytes, bytes] = field(default_factory=dict)


def _parts(body: bytes, content_type: str) -> list[_Part]:
    try:
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import MultipartParser, parse_options_header
    except ImportError:
        lacking = "a picture as the body: this site lacks python-multipart (pip install 'concord-edge[pictures]')"
        raise MediaTypeError("Content-Type", lacking) from None
    parts: list[_Part] = []
    ended: list[bool] = []

    def begin() -> None:
        if len(parts) >= _MAX_PARTS:
            raise BodyError("body", f"a form of at most {_MAX_PARTS} parts")
        parts.append(_Part())

    def end_header() -> None:
        part = parts[-1]
        if part.header.lower() == b"content-disposition":
            part.options = parse_options_header(bytes(part.value))[1]
        part.header.clear()
        part.value.clear()

    _, options = parse_options_header(content_type.encode("latin-1"))
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": begin,
                "on_part_data": lambda data, start, end: parts[-1].data.extend(data[start:end]),
                "on_header_field": lambda data, start, end: parts[-1].header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: parts[-1].value.extend(data[start:end]),
                "on_header_end": end_header,
                "on_end": lambda: ended.append(True),
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise BodyError("body", f"a form as {FORM_TYPE} describes ({error})") from error
    if not ended:
        raise BodyError("body", "a whole form: its last boundary is missing")
    return parts
