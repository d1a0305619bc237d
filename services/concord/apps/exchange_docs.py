"""What the OpenAPI page says about the routes between sites: every status, and what a body holds."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Responses = dict[int | str, Json]

_BYTES: Json = {"schema": {"type": "string", "format": "binary"}}
_STAMP: Json = {"type": "string", "example": "1.3.42", "description": "epoch.incarnation.sequence"}
_REFUSED: Json = {
    "type": "object",
    "required": ["reason", "detail"],
    "properties": {
        "reason": {"type": "string"},
        "detail": {"type": "string"},
        "expected": {"description": "with 409: what would have been right"},
    },
}


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refusals(**texts: str) -> Responses:
    return {int(status.removeprefix("s")): _answer(text, _REFUSED) for status, text in texts.items()}


_ANY: Responses = {
    **_refusals(
        s400="the request cannot be read",
        s401="it does not prove that it comes from the site it names",
        s403="that site may not use this slot, or is no neighbour",
        s429="too often; see Retry-After",
        s503="the mailbox is out of reach; see Retry-After",
    ),
    404: {"description": "no site has such a name"},
}
PUT_INBOX: Responses = {
    200: _answer("known already: the newest stamp that is held", {"type": "object", "properties": {"newest": _STAMP}}),
    204: {"description": "stored"},
    **_ANY,
    **_refusals(
        s409="of another federation, model, epoch or other terms",
        s413="over the limit",
        s422="torn, of another layout, not finite or absurd",
    ),
}
GET_OUTBOX: Responses = {
    200: {
        "description": "the newest update",
        "content": {"application/octet-stream": _BYTES},
        "headers": {"ETag": {"description": "its stamp", "schema": {"type": "string"}}},
    },
    204: {"description": "nothing newer, and no If-None-Match was sent"},
    304: {"description": "nothing newer than If-None-Match"},
    **_ANY,
    422: {"description": "never"},
}
PUT_INBOX_REQUEST: Json = {
    "requestBody": {"required": True, "content": {"application/octet-stream": _BYTES}},
}
GET_OUTBOX_REQUEST: Json = {
    "parameters": [
        {"name": "after", "in": "query", "schema": _STAMP},
        {"name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 30}},
        {"name": "if-none-match", "in": "header", "schema": {"type": "string"}},
    ]
}
