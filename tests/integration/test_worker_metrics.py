"""Several worker processes under one `dramatiq` show their numbers together, on one port."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge_service.version import VERSION
from tests.support.http import ask, free_port, samples
from tests.support.service import Service
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 2
DRAMATIQ = str(Path(sys.executable).with_name("dramatiq"))
ACTOR = 'actor_name="compose",queue_name="bot_messages"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder for temporary files of the processes."""
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """Give the port of a worker of two processes that have done their work; it has to end well afterwards."""
    port = free_port()
    with Service({"HEALTH_PORT": str(port), "TMPDIR": str(folder)}) as service:
        command = (DRAMATIQ, "tests.support.measured_worker:broker", "--processes", str(PROCESSES), "--threads", "1")
        service.start("worker", command)

        def check() -> None:
            try:
                numbers = samples(ask(port, "/metrics").body)
            except OSError:
                raise AssertionError("nobody listens yet") from None
            assert numbers.get(f"dramatiq_message_rejects_total{{{ACTOR}}}") == PROCESSES, numbers

        eventually(check, timeout=30)
        yield port
        assert service.stop() == [0]
    assert list(folder.glob("bridge-metrics-*")) == [], "the files outlived an orderly end"


def test_the_sum_of_all_processes(port: int) -> None:
    """Counters and histograms are the sum of what all processes counted, retries and failures included."""
    numbers = samples(ask(port, "/metrics").body)

    # One message each that succeeds; one that fails, is tried again once and given up.
    assert numbers[f"dramatiq_messages_total{{{ACTOR}}}"] == 3 * PROCESSES
    assert numbers[f"dramatiq_message_errors_total{{{ACTOR}}}"] == 2 * PROCESSES
    assert numbers[f"dramatiq_message_retries_total{{{ACTOR}}}"] == PROCESSES
    assert numbers[f"dramatiq_message_duration_milliseconds_count{{{ACTOR}}}"] == 3 * PROCESSES
    assert numbers["bridge_replies_total"] == PROCESSES
    assert numbers["bridge_messages_answered_total"] == 3 * PROCESSES
    assert numbers["bridge_reply_lateness_seconds_count"] == PROCESSES
    assert numbers["bridge_responder_duration_seconds_count"] == PROCESSES


def test_one_series_for_all_processes(port: int) -> None:
    """No series names a process, a host or a conversation, and the loop that is furthest behind stands for all."""
    text = ask(port, "/metrics").body
    numbers = samples(text)

    assert "pid=" not in text
    assert numbers[f'bridge_build_info{{version="{VERSION}"}}'] == 1
    assert "de31323b" not in text
    assert [name for name in numbers if name.startswith("bridge_loop_last_success")] == [
        'bridge_loop_last_success_timestamp_seconds{loop="tick"}'
    ]


def test_the_files_are_the_services_own(port: int, folder: Path) -> None:
    """The files in which the processes count lie in one folder that no other user may enter."""
    del port
    [shared] = folder.glob("bridge-metrics-*")

    assert shared.stat().st_mode & 0o777 == 0o700
    assert len(list(shared.glob("counter_*.db"))) == PROCESSES
