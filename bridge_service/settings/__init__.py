"""The environment. Each process reads and validates it once, at its start."""

from bridge_service.settings.exposure import is_open, plaintext, secrets, summary
from bridge_service.settings.fields import REQUIRED, Settings
from bridge_service.settings.policy import POLICY, policy
from bridge_service.settings.tls import verifies

__all__ = ["POLICY", "REQUIRED", "Settings", "is_open", "plaintext", "policy", "secrets", "summary", "verifies"]
