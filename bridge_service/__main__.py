"""Runs `python -m bridge_service COMMAND`."""

from bridge_service.operate.cli import app

app(prog_name="python -m bridge_service")
