"""The drawings of docs/idea.md, computed: `python -m tools.site.pictures` makes them anew (`make pictures`).

A drawing has its own colours for light and dark; on the site it is put into the page and takes those of the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTH, HEIGHT = 340, 250
SITES = ("a", "b", "c", "d")
_STYLE = (
    ".drawing{--ink:#24292f;--faint:#8c959f;--a:#0072b2;--b:#b35900;--c:#007a5a;--d:#a33c80;--soft:#8c959f33;"
    "font:12px system-ui,sans-serif;fill:var(--ink)}"
    "@media(prefers-color-scheme:dark){.drawing{--ink:#e6edf3;--faint:#8b949e;--a:#56b4e9;--b:#e69f00;--c:#2fbf94;"
    "--d:#e08cc0;--soft:#8b949e33}}"
)

Point = tuple[float, float]


@dataclass
class Drawing:
    """An SVG of WIDTH by HEIGHT that grows by what is put on it; colours are names of `_STYLE`."""

    title: str
    height: int = HEIGHT
    parts: list[str] = field(default_factory=list)

    def line(
        self, points: Iterable[Point], colour: str, width: float = 1.5, dashes: str = "", arrow: bool = False
    ) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        more = (f' stroke-dasharray="{dashes}"' if dashes else "") + (' marker-end="url(#tip)"' if arrow else "")
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="{width}" '
            f'stroke-linejoin="round"{more}/>'
        )

    def dot(self, at: Point, colour: str, radius: float = 5, hollow: bool = False) -> None:
        fill = f'fill="none" stroke="var(--{colour})" stroke-width="1.5"' if hollow else f'fill="var(--{colour})"'
        self.parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius}" {fill}/>')

    def box(self, at: Point, size: Point, colour: str, opacity: float = 1) -> None:
        self.parts.append(
            f'<rect x="{at[0]:.1f}" y="{at[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" rx="2" '
            f'fill="var(--{colour})" fill-opacity="{opacity}"/>'
        )

    def text(self, at: Point, text: str, colour: str = "ink", anchor: str = "start", bold: bool = False) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" '
            f'style="fill:var(--{colour})"{weight}>{text}</text>'
        )

    def star(self, at: Point) -> None:
        """The mark of the optimum of all data."""
        points = [
            (at[0] + radius * math.sin(turn * math.pi / 5), at[1] - radius * math.cos(turn * math.pi / 5))
            for turn, radius in ((turn, 8 if turn % 2 == 0 else 3.5) for turn in range(10))
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="var(--ink)"/>')

    def svg(self) -> str:
        """The whole file."""
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
            'orient="auto"><path d="M0,0 8,4 0,8z" fill="var(--faint)"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}"><style>{_STYLE}</style>{tip}' + "".join(self.parts) + "</svg>\n"
        )


@dataclass(frozen=True)
class Bowl:
    """A site's loss in the plane: a quadratic with its own optimum, `stiffness` along both axes of a turned frame."""

    optimum: Point
    stiffness: Point
    turn: float

    def gradient(self, at: Point) -> Point:
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        x, y = at[0] - self.optimum[0], at[1] - self.optimum[1]
        along, across = self.stiffness[0] * (cos * x + sin * y), self.stiffness[1] * (cos * y - sin * x)
        return cos * along - sin * across, sin * along + cos * across


BOWLS = (
    Bowl((0.15, 0.20), (2.0, 0.15), 0.3),
    Bowl((0.90, 0.15), (0.2, 1.4), 0.5),
    Bowl((0.85, 0.90), (0.9, 0.1), 0.9),
    Bowl((0.10, 0.85), (0.2, 0.6), -0.4),
)
RATE, STEPS, ROUNDS, START = 0.12, 8, 80, (0.5, 0.05)


def neighbours(site: int, sites: int) -> tuple[int, ...]:
    """Those beside a site in a ring; two sites have one edge."""
    return tuple(sorted({(site - 1) % sites, (site + 1) % sites}))


def gossip(gradients: Sequence[Callable[[Point], Point]], rounds: int, start: Point) -> list[list[Point]]:
    """The way of each site: STEPS plain steps, then half the way to each neighbour in turn."""
    models = [start] * len(gradients)
    ways = [[start] for _ in gradients]
    for _ in range(rounds):
        for site, gradient in enumerate(gradients):
            for _ in range(STEPS):
                g = gradient(models[site])
                models[site] = (models[site][0] - RATE * g[0], models[site][1] - RATE * g[1])
            ways[site].append(models[site])
        sent = list(models)
        for site in range(len(models)):
            for other in neighbours(site, len(models)):
                models[site] = tuple((mine + its) / 2 for mine, its in zip(models[site], sent[other], strict=True))
            ways[site].append(models[site])
    return ways


def consensus(
    gradients: Sequence[Callable[[Point], Point]], rounds: int, start: Point
) -> tuple[list[list[Point]], list[list[Point]]]:
    """The way of each site by ECL-ISVR with theta = 1/2, and the force of its first anchor after each round."""
    sites = len(gradients)
    anchors = {(site, other): start for site in range(sites) for other in neighbours(site, sites)}
    models, ways, forces = [start] * sites, [[start] for _ in gradients], [[(0.0, 0.0)] for _ in gradients]
    penalty = 1 / (RATE * (STEPS - 1) * len(neighbours(0, sites)))
    for _ in range(rounds):
        for site, gradient in enumerate(gradients):
            held = [anchors[site, other] for other in neighbours(site, sites)]
            for _ in range(STEPS):
                w, g = models[site], gradient(models[site])
                models[site] = tuple(
                    (w[axis] / RATE - g[axis] + penalty * sum(u[axis] for u in held)) / (1 / RATE + penalty * len(held))
                    for axis in (0, 1)
                )
                ways[site].append(models[site])
            forces[site].append(tuple(penalty * (held[0][axis] - models[site][axis]) for axis in (0, 1)))
        sent = {edge: tuple(2 * models[edge[0]][axis] - u[axis] for axis in (0, 1)) for edge, u in anchors.items()}
        for (site, other), u in anchors.items():
            anchors[site, other] = tuple((u[axis] + sent[other, site][axis]) / 2 for axis in (0, 1))
    return ways, forces


def optimum(gradients: Sequence[Callable[[Point], Point]]) -> Point:
    """Where the gradients sum to zero, by many small steps."""
    at = START
    for _ in range(20_000):
        total = [sum(gradient(at)[axis] for gradient in gradients) for axis in (0, 1)]
        at = (at[0] - 0.01 * total[0], at[1] - 0.01 * total[1])
    return at


def plane(title: str, ways: Sequence[Sequence[Point]], ends: str) -> Drawing:
    """Ways of four sites in the plane of two parameters, with each site's own optimum and that of all data."""

    def place(point: Point) -> Point:
        return 20 + 300 * point[0], 238 - 215 * point[1]

    drawing = Drawing(title)
    drawing.text((8, 16), title, bold=True)
    for colour, way, bowl in zip(SITES, ways, BOWLS, strict=True):
        drawing.line(map(place, way), colour, 1.1)
        drawing.dot(place(bowl.optimum), colour, 4, hollow=True)
    for colour, way in zip(SITES, ways, strict=True):
        drawing.dot(place(way[-1]), colour, 5)
    drawing.star(place(optimum([bowl.gradient for bowl in BOWLS])))
    drawing.text((WIDTH - 8, 16), ends, "faint", "end")
    return drawing


PAIR = (lambda w: (1.6 * (w[0] - 0.95), 0.0), lambda w: (0.4 * (w[0] - 0.05), 0.0))
"""Two sites with one parameter: the first is sure of what it wants, the second less so."""
_LONG = 12


def over_rounds(
    title: str, note: str, lines: Sequence[Sequence[float]], mark: float, low: float, high: float
) -> Drawing:
    """Values from `low` to `high` over rounds, one line per site, and a dashed one at `mark`."""

    def place(share: float, value: float) -> Point:
        return 34 + 292 * share, 220 - 180 * (value - low) / (high - low)

    drawing = Drawing(title)
    drawing.text((8, 16), title, bold=True)
    drawing.line([place(0, low), place(1, low)], "faint", 1)
    drawing.text((WIDTH - 14, 238), "rounds", "faint", "end")
    drawing.text((34, 238), note, "faint")
    drawing.line([place(0, mark), place(1, mark)], "ink", 1, "4 4")
    for colour, values in zip(SITES, lines, strict=False):
        drawing.line([place(index / (len(values) - 1), value) for index, value in enumerate(values)], colour, 2)
    return drawing


def timeline(title: str, waits: bool) -> Drawing:
    """When three sites of unequal speed work, wait and send; an update to the slow site's neighbour is lost."""
    drawing = Drawing(title, 200)
    drawing.text((8, 16), title, bold=True)
    names, lengths, end = ("A", "B", "C"), (34.0, 48.0, 92.0), 326.0
    rows = {name: 40 + 48 * index for index, name in enumerate(names)}
    for colour, name, length in zip(SITES, names, lengths, strict=False):
        top, begin = rows[name], 34.0
        drawing.text((10, top + 16), name, colour, bold=True)
        while begin < end:
            drawing.box((begin, top), (min(length, end - begin) - 1.5, 22), colour)
            pause = max(lengths) - length if waits else 0
            if pause and begin + length < end:
                drawing.box((begin + length, top), (min(pause, end - begin - length) - 1.5, 22), "soft")
            begin += length + pause
    if waits:
        for turn in range(1, 4):
            x = 34 + turn * max(lengths)
            drawing.line([(x - 1, 34), (x - 1, 166)], "ink", 1.2, "3 3")
        drawing.text((34, 188), "grey: waiting for the slowest", "faint")
        return drawing
    for x, upper, lower in ((68, "A", "B"), (102, "A", "B"), (170, "A", "B"), (130, "B", "C"), (226, "B", "C")):
        drawing.line([(x, rows[upper] + 22), (x + 9, rows[lower] - 2)], "faint", 1.2, arrow=True)
    for x, lower, upper in ((126, "C", "B"), (218, "C", "B"), (178, "B", "A")):
        drawing.line([(x, rows[lower]), (x + 9, rows[upper] + 24)], "faint", 1.2, arrow=True)
    lost = (272.0, rows["B"] + 22.0)
    drawing.line([lost, (lost[0] + 5, lost[1] + 13)], "faint", 1.2, "3 2")
    drawing.text((lost[0] + 3, lost[1] + 22), "× lost", "ink")
    drawing.text((34, 188), "arrows: the newest update, into a mailbox", "faint")
    return drawing


def drawings() -> dict[str, Drawing]:
    """All drawings by the name of their file."""
    gradients = [bowl.gradient for bowl in BOWLS]
    rest = optimum(PAIR)[0]
    apart, (together, forces) = gossip(PAIR, _LONG, (0.3, 0)), consensus(PAIR, _LONG, (0.3, 0))
    return {
        "idea-gossip-plane": plane("Averaging", gossip(gradients, ROUNDS, START), "apart, and off"),
        "idea-ecl-plane": plane("A dual on every edge", consensus(gradients, ROUNDS, START)[0], "together"),
        "idea-gossip-rounds": over_rounds(
            "Averaging: two models", "dashed: best for all", [[w[0] for w in way] for way in apart], rest, 0, 1
        ),
        "idea-ecl-rounds": over_rounds(
            "With duals: two models", "dashed: best for all", [[w[0] for w in way] for way in together], rest, 0, 1
        ),
        "idea-ecl-forces": over_rounds(
            "The force on each", "equal and opposite", [[f[0] for f in force] for force in forces], 0, -0.5, 0.5
        ),
        "idea-barrier": timeline("In rounds, with a barrier", waits=True),
        "idea-mailboxes": timeline("With mailboxes", waits=False),
    }


if __name__ == "__main__":
    for name, drawing in drawings().items():
        (IMAGES / f"{name}.svg").write_text(drawing.svg())
