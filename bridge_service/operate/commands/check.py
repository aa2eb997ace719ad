"""`check`: a look at everything that the bridge needs."""

from collections.abc import Iterator
from dataclasses import asdict

from bridge_service.checks.finding import Finding
from bridge_service.checks.postgresql import check_postgresql
from bridge_service.checks.redis import check_redis
from bridge_service.errors import BridgeError
from bridge_service.machine.ledger import open_ledger
from bridge_service.operate.output import Output
from bridge_service.settings import Settings, is_open


def run(settings: Settings, output: Output) -> bool:
    """Make each look, print its finding at once, and return whether all is well."""
    findings = []
    for finding in _findings(settings, output):
        findings.append(finding)
        _say(finding, output)
    output.document({"checks": [asdict(finding) for finding in findings]})
    return all(finding.ok for finding in findings)


def refused(output: Output, faults: tuple[str, ...]) -> None:
    """Print the document of a run that looked at nothing, because the configuration is wrong."""
    finding = Finding("configuration", ok=False, detail="; ".join(faults), remedy="correct these variables")
    output.document({"checks": [asdict(finding)]})


def _findings(settings: Settings, output: Output) -> Iterator[Finding]:
    yield Finding("configuration", ok=True, detail="every variable is valid")
    yield _access(settings)
    yield from check_postgresql(settings.database_url, describe=output.describe, running=True)
    queue_id = _queue_id(settings.database_url)
    yield from check_redis(settings.redis_url, "redis", "REDIS_URL", describe=output.describe, queue_id=queue_id)
    if settings.broker_url != settings.redis_url:
        yield from check_redis(settings.broker_url, "broker", "BROKER_URL", describe=output.describe, queue_id=queue_id)


def _queue_id(url: str) -> str | None:
    try:
        with open_ledger(url, "check") as ledger:
            return ledger.queue_id()
    except BridgeError:  # a look of check_postgresql says why
        return None


def _access(settings: Settings) -> Finding:
    if settings.console_token is not None:
        return Finding("access", ok=True, detail="pages and numbers ask for CONSOLE_TOKEN")
    if not is_open(settings):
        return Finding("access", ok=True, detail="pages and numbers are for this machine alone")
    remedy = "CONSOLE_TOKEN: set it, such as to what `openssl rand -hex 32` prints, or have something in front ask"
    return Finding(
        "access", ok=True, detail="pages and numbers are open to every machine that reaches HOST", remedy=remedy
    )


def _say(finding: Finding, output: Output) -> None:
    mark, style = ("✅", "yellow" if finding.remedy else "green") if finding.ok else ("❌", "red")
    remedy = f" → {finding.remedy}" if finding.remedy else ""
    output.say(f"{mark} {finding.name}: {finding.detail}{remedy}", style)
