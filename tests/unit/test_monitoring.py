"""The alert rules, the dashboard and their runbook speak of what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from bridge_service.checks.standing import OK, Standing
from bridge_service.machine.alive import count_alive
from bridge_service.telemetry.metrics import Metrics
from bridge_service.web.numbers import BridgeCollector
from bridge_service.web.observer import Figures, Look

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docs" / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
BOARD = json.loads((ROOT / "docs" / "monitoring" / "bridge.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {
    **{str(rule.get("alert") or rule["record"]): str(rule["expr"]) for rule in RULES},
    **{panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in PANELS},
}
# What is said of them, with the names of labels in it.
WORDS = {
    **{str(rule.get("alert") or rule["record"]): str(rule.get("annotations")) for rule in RULES},
    **{panel["title"]: " ".join(target["legendFormat"] for target in panel["targets"]) for panel in PANELS},
}
# Where each loop gets its name.
LOOPS = {
    "planner": ("schedulers/planner.py", 'super().__init__("planner")'),
    "listener": ("schedulers/listener.py", 'super().__init__("listener")'),
    "deliverer": ("schedulers/deliverer.py", 'super().__init__("deliverer")'),
    "consumer": ("bridge_service/worker/process.py", 'watch("consumer")'),
}

# What operators are used to find; a leader is not among it, for there is none (docs/SECURITY.md).
USUAL = (
    "bridge_events_captured_total", "bridge_notifications_total", "bridge_turns_total", "bridge_replies_total",
    "bridge_initiations_total", "bridge_duplicates_prevented_total", "bridge_recovered_total", "bridge_dead_letters",
    "bridge_inbox_open", "bridge_oldest_unanswered_timestamp_seconds", "bridge_reply_lateness_seconds_bucket",
    "bridge_responder_duration_seconds_bucket", "bridge_enqueue_errors_total", "bridge_db_errors_total",
    "bridge_listener_connected", "bridge_loop_last_success_timestamp_seconds", "bridge_clock_offset_seconds",
    "bridge_notify_queue_usage_ratio", "bridge_build_info", "bridge_processes",
)  # fmt: skip

_SERIES = re.compile(r"\b(bridge_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_LABEL_NAME = re.compile(r"by \((\w+)\)|\$labels\.(\w+)|\{\{(\w+)\}\}")


@pytest.fixture(scope="module")
def shown() -> str:
    """Give all that the three processes show, as Prometheus reads it."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.listener(lambda: True)
    metrics.loops_turned(dict.fromkeys(LOOPS, 0.0), now=1.0)
    figures = Figures(0, 0, 0, 0, 0, 0, None, 0, 0, 0.0, None, None, count_alive([]), 0.0, [], {}, 0, 0, 0)
    console = BridgeCollector(Look(1.0, Standing(OK), Standing(OK), figures))
    return (generate_latest(registry) + generate_latest(console)).decode()


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_series_is_shown(shown: str, where: str) -> None:
    """Every series that a rule or a panel asks for, with its labels' values, is one that a process shows."""
    text = EXPRESSIONS[where]
    for recorded in RECORDED:
        text = text.replace(recorded, "")
    asked = _SERIES.findall(text)

    assert asked or where.startswith("BridgeRepliesLate")
    assert "bridge:" not in text, "nothing records that"
    known = {"instance", "job"}  # Prometheus adds them
    for name, labels in asked:
        lines = [line for line in shown.splitlines() if re.match(rf"{name}[{{ ]", line)]
        assert any(set(_LABEL.findall(labels)) <= set(_LABEL.findall(line)) for line in lines), (name, labels)
        known |= {label for line in lines for label, _ in _LABEL.findall(line)}
    assert {name for found in _LABEL_NAME.findall(text + WORDS[where]) for name in found if name} <= known


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_figures_are_shown(shown: str, name: str) -> None:
    """Whoever comes from other services finds the figures that they look for, under the names that they know."""
    assert re.search(rf"^{name}[{{ ]", shown, re.MULTILINE)


@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_has_its_name(loop: str) -> None:
    """The loops that the rules name are watched under these names."""
    file, words = LOOPS[loop]
    assert words in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """Each alert has a severity, one sentence, and its own section in the runbook: meaning and first command."""
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook"] == f"docs/OPERATIONS.md#{rule['alert'].lower()}"
    section = RUNBOOK.partition(f"\n### {rule['alert']}\n")[2].partition("\n#")[0]
    assert f"**Meaning** ({rule['labels']['severity']}): " in section
    assert "**First command**" in section


def test_the_runbook_has_no_section_too_many() -> None:
    """Every alert of the runbook is one that can ring, in the same order."""
    described = re.findall(r"^### (Bridge\w+)$", RUNBOOK, re.MULTILINE)

    assert described == [rule["alert"] for rule in ALERTS]


def test_the_runbooks_links_lead_somewhere() -> None:
    """Every file and section that the runbook refers to is there."""
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        file, _, anchor = target.partition("#")
        path = ROOT / "docs" / (file or "OPERATIONS.md")
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_dashboard_is_complete() -> None:
    """Every panel has a place of its own, a data source that the viewer chooses, and something to show."""
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["targets"], panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
