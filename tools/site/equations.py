"""Equations as MathML, which browsers set by themselves: no script, no font, nothing to fetch."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_SET = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.S)


def with_equations(page: str) -> str:
    """A page's HTML with what arithmatex found turned into MathML."""
    return _SET.sub(_mathml, page)


def _mathml(match: re.Match[str]) -> str:
    block = match["tag"] == "div"
    mathml = convert(html.unescape(match["latex"]).strip(), display="block" if block else "inline")
    return f'<div class="equation">{mathml}</div>' if block else mathml
