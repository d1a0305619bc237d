"""What the sections of a job are made of: their common base, ranges of numbers, and checks of single values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from concord.suggest import unknown


class Section(BaseModel):
    """What every section of a job has in common: no unknown keys, no silent conversion, no change later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


def one_of(what: str, names: tuple[str, ...]) -> AfterValidator:
    """One of `names`; the error calls it a `what` and says which known name is nearest."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown(what, name, names))
        return name

    return AfterValidator(check)


def matching(pattern: str, should_be: str) -> AfterValidator:
    """A text that the whole pattern matches; the error says what it `should_be`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {should_be}, found {text!r}")
        return text

    return AfterValidator(check)


def named(key: str) -> Callable[[object], object]:
    """The short form of a section: a bare word stands for its `key`."""
    return lambda value: {key: value} if isinstance(value, str) else value
