"""The console's charts: what is drawn of the figures, and where a line breaks."""

from __future__ import annotations

from typing import Any

from bridge_service.web.charts import draw


def point(at: float, **known: float | None) -> dict[str, Any]:
    """Return a point at which nothing is known except these."""
    return {"at": at, "answered": None, "p50": None, "p99": None, "tokens": None, "retries": 0, **known}


def test_what_is_not_known_is_not_drawn() -> None:
    """A minute that was not counted has no bar and breaks the line; 0 is no bar; the greatest fills the height."""
    points = [
        point(0, answered=4, p50=1),
        point(60, answered=0, p50=2),
        point(120),
        point(180, answered=2, p50=2),
        point(240),
        point(300, tokens=7),
    ]
    charts = {(chart["name"], chart["span"]): chart for chart in draw({"hour": points, "day": [point(0)]})}
    answered, lateness = charts["answered", "hour"], charts["lateness", "hour"]
    assert answered["paths"] == [("bars", "M0.0 100v-100.0h80.0V100zM300.0 100v-50.0h80.0V100z")]
    assert dict(lateness["paths"])["line"] == "M50.0 50.0h1L150.0 0.0M350.0 0.0h1"
    assert (answered["most"], answered["begin"], answered["end"]) == ("4", "00:00", "00:05")
    assert not charts["answered", "day"]["known"]
    assert ("tokens", "hour") in charts
    assert ("tokens", "day") not in charts
