"""The keys of a job file as Markdown, out of the model that checks it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from concord.job.model import Job, SiteSection
from concord.job.values import Section


def markdown() -> str:
    """A part per section: what its docstring says, and its keys with their defaults."""
    parts = [
        _part(
            "Top level",
            Job,
            "The name of the federation, and the sections below. `name`, `task` and `sites` are needed.",
        )
    ]
    for key, field in Job.model_fields.items():
        model = field.annotation if key != "sites" else SiteSection
        if inspect.isclass(model) and issubclass(model, Section):
            parts.append(_part(f"`{key}`" if key != "sites" else "`sites.<name>`", model, _text(model)))
    return "\n".join(parts)


def _part(title: str, model: type[BaseModel], text: str) -> str:
    return "\n".join([f"## {title}", "", text, "", "| key | default | type |", "|---|---|---|", *_rows(model), ""])


def _rows(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_default(field)} | {_kind(schema['properties'][name], schema.get('$defs', {}))} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return "see below" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def _kind(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """What the schema asks for, in words."""
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one, known) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return "list"
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return " ".join([kind.get(schema.get("type", ""), schema.get("type", "any")), *limits])


def _text(model: type[BaseModel]) -> str:
    return re.sub(r"\s*\n\s*(?!\n)", " ", inspect.cleandoc(model.__doc__ or ""))
