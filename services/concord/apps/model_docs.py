"""What the OpenAPI page says about the versions of a model, with an example each."""

from __future__ import annotations

Json = dict[str, object]

_VERSION = {
    "name": "digits",
    "version": 12,
    "state": "served",
    "reason": "",
    "pinned": False,
    "held": False,
    "round": 300,
    "step": 2400,
    "fingerprint": "5a1f",
    "metrics": {"accuracy": 0.97},
    "created_at": 1790000000.0,
    "age_seconds": 1.5,
    "classes": ["0", "1"],
    "input_shape": [4],
    "lineage": {
        "incarnation": 1,
        "heard": {"N2": {"round": 299, "incarnation": 1, "sequence": 299}},
        "consensus_distance": 0.002,
    },
    "personal": {"name": "digits-personal", "metrics": {"accuracy": 0.99}},
    "shadow": None,
}
_GATE = {"metric": "accuracy", "drop": 0.02, "lower_is_better": False}
_SHADOW = {"share": 0.1, "version": None, "compared": 0, "dropped": 0, "failed": 0}


def _body(description: str, example: object) -> Json:
    return {"description": description, "content": {"application/json": {"example": example}}}


V1_MODELS: Json = {
    "responses": {
        "200": _body(
            "Every version on the shelf, the one in service first; an empty list before the first. `state` is served, "
            "candidate, held back, refused or kept.",
            {"models": [_VERSION], "following": True, "gate": _GATE, "shadow": _SHADOW},
        )
    }
}

_WHY = {
    "401": "the token is wrong, or there is none in the request",
    "403": "this process has no admin token, so nobody may do this",
    "404": "no such version, or no such pin",
    "409": "that cannot be: which other way leads there",
    "503": "the shelf of models is out of reach; see Retry-After",
}

V1_CHANGE: Json = {
    "parameters": [
        {"name": "Authorization", "in": "header", "schema": {"type": "string"}, "description": "Bearer TOKEN"}
    ],
    "responses": {
        "200": _body("Done, unless `served` says otherwise.", {"model": _VERSION, "served": 12, "following": True}),
        **{status: _body(text, {"error": text}) for status, text in _WHY.items()},
    },
}
