"""A run as a picture: the faults as bands, one lane for each thing they touch, and every reply's lateness as a dot."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

from tests.chaos.faults import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.chaos.crew import Exit
    from tests.chaos.nemesis import Band
    from tests.support.ledger import Dot

WIDTH: Final = 1400
LEFT: Final = 130
RIGHT: Final = 20
TOP: Final = 50
LANE: Final = 30
PLOT: Final = 300
FOOT: Final = 40

_COLOURS: Final = {
    Target.REDIS: "#c0392b",
    Target.REDIS_LINK: "#e67e22",
    Target.POSTGRES: "#1f618d",
    Target.POSTGRES_LINK: "#5dade2",
    Target.WORKER: "#1e8449",
    Target.SCHEDULER: "#7d6608",
    Target.RESPONDER: "#7d3c98",
    Target.MODEL: "#7d3c98",
    Target.MODEL_LINK: "#bb8fce",
}
_FLOOR: Final = 0.05
_MARKS: Final = (0.1, 1.0, 10.0, 60.0)
_LETTER: Final = 5.2


def draw(
    title: str, span: tuple[float, float], bands: Sequence[Band], dots: Sequence[Dot], exits: Sequence[Exit]
) -> str:
    """Return the picture as SVG.

    Parameters:
      title: stands above it.
      span: the time it shows, from and to, as of time.time().
      exits: processes that ended, marked by ticks on their lanes.
    """
    picture = _Picture(*span)
    height = TOP + LANE * len(Target) + PLOT + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" fill="#222">{escape(title)}</text>',
        *picture.lanes(bands, exits),
        *picture.axes(),
        *picture.dots(dots),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Picture:
    def __init__(self, began: float, ended: float) -> None:
        self._began = began
        self._seconds = ended - began
        self._plot = TOP + LANE * len(Target)

    def _x(self, at: float) -> float:
        return LEFT + (at - self._began) / self._seconds * (WIDTH - LEFT - RIGHT)

    def _y(self, late: float) -> float:
        share = math.log(max(late, _FLOOR) / _FLOOR) / math.log(_MARKS[-1] / _FLOOR)
        return self._plot + PLOT - 5 - min(1.0, share) * (PLOT - 20)

    def lanes(self, bands: Sequence[Band], exits: Sequence[Exit]) -> Iterator[str]:
        for number, target in enumerate(Target):
            y = TOP + LANE * number
            yield f'<text x="{LEFT - 8}" y="{y + 18}" text-anchor="end" fill="#444">{target.value}</text>'
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#eee"/>'
            mine = sorted((band for band in bands if band.target is target), key=lambda band: band.began)
            ends = [self._x(band.began) for band in mine[1:]] + [float(WIDTH - RIGHT)]
            for band, end in zip(mine, ends, strict=False):
                yield from self._band(band, y, end)
            for each in exits:
                if each.name.startswith(target.value):
                    x = self._x(each.at)
                    yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2}" y2="{y + LANE - 2}" stroke="#000"/>'

    def _band(self, band: Band, y: int, room: float) -> Iterator[str]:
        """Draw a band, with its name inside or, as far as there is room, after it."""
        x = self._x(band.began)
        end = max(x + 2, self._x(band.healed or band.began))
        width, colour = f"{end - x:.1f}", _COLOURS[band.target]
        yield f'<rect x="{x:.1f}" y="{self._plot}" width="{width}" height="{PLOT}" fill="{colour}" opacity="0.05"/>'
        yield f'<rect x="{x:.1f}" y="{y + 3}" width="{width}" height="{LANE - 6}" rx="3" fill="{colour}"/>'
        name = band.kind.partition("-")[2]
        if len(name) * _LETTER < end - x or len(name) * _LETTER > room - end:
            at, fill, letters = x + 2, "#fff", int((end - x) / _LETTER)
        else:
            at, fill, letters = end + 2, "#333", len(name)
        yield (
            f'<text x="{at:.1f}" y="{y + 18}" font-size="9" fill="{fill}">{escape(name[:letters])}'
            f"<title>{escape(band.kind)}</title></text>"
        )

    def axes(self) -> Iterator[str]:
        bottom = self._plot + PLOT
        for mark in _MARKS:
            y = self._y(mark)
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#444">{mark:g} s late</text>'
        step = 10 if self._seconds <= 300 else 60
        for second in range(0, int(self._seconds) + 1, step):
            x = self._x(self._began + second)
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}" stroke="#888"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#444">{second} s</text>'

    def dots(self, dots: Sequence[Dot]) -> Iterator[str]:
        for dot in dots:
            colour = "#2c3e50" if dot.late < 1 else "#e74c3c"
            yield (
                f'<circle cx="{self._x(dot.at):.1f}" cy="{self._y(dot.late):.1f}" r="1.8" fill="{colour}"'
                ' fill-opacity="0.6"/>'
            )
