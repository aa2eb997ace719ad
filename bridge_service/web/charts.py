"""Charts, drawn on the server: the paths of an SVG picture, without a style or a script."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

WIDTH: Final = 600
HEIGHT: Final = 100

SERIES: Final = {
    "answered": (("answered", "bars"),),
    "lateness": (("p99", "line soft"), ("p50", "line")),
    "retries": (("retries", "bars bad"),),
    "tokens": (("tokens", "bars"),),
}
"""Each chart's fields of a point, and a class of the stylesheet."""

SPANS: Final = ("hour", "day")

Points = Sequence[Mapping[str, Any]]


def draw(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the charts of the last hour and day, from what charts.sql returns; none of tokens without a model."""
    drawn = [_chart(name, span, answer[span]) for name in SERIES for span in SPANS]
    return [chart for chart in drawn if chart["name"] != "tokens" or float(chart["most"]) > 0]


def _chart(name: str, span: str, points: Points) -> dict[str, Any]:
    fields = [field for field, _ in SERIES[name]]
    known = [float(point[field]) for point in points for field in fields if point[field] is not None]
    most = max(known, default=0.0)
    top = most or 1.0
    return {
        "name": name,
        "span": span,
        "most": f"{most:.3g}",
        "begin": _clock(points[0]["at"]),
        "end": _clock(points[-1]["at"]),
        "known": bool(known),
        "paths": [(css, _DRAWN[css.partition(" ")[0]](points, field, top)) for field, css in SERIES[name]],
    }


def _bars(points: Points, field: str, top: float) -> str:
    width = WIDTH / len(points)
    drawn = []
    for place, point in enumerate(points):
        if point[field]:
            height = max(1.0, float(point[field]) / top * HEIGHT)
            drawn.append(f"M{place * width:.1f} {HEIGHT}v{-height:.1f}h{width * 0.8:.1f}V{HEIGHT}z")
    return "".join(drawn)


def _line(points: Points, field: str, top: float) -> str:
    return "".join(_strokes(points, field, top))


def _strokes(points: Points, field: str, top: float) -> Iterator[str]:
    """Yield the line's parts: where nothing is known the line breaks."""
    width = WIDTH / len(points)
    pen = "M"
    for place, point in enumerate(points):
        if point[field] is None:
            pen = "M"
            continue
        x, y = (place + 0.5) * width, HEIGHT - float(point[field]) / top * HEIGHT
        # A point without neighbours would be no line.
        yield f"{pen}{x:.1f} {y:.1f}h1" if pen == "M" else f"L{x:.1f} {y:.1f}"
        pen = "L"


_DRAWN: Final[Mapping[str, Callable[[Points, str, float], str]]] = {"bars": _bars, "line": _line}


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M}"
