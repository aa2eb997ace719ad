"""The environment: read and validated once at the start of each process."""

from bridge_service.settings.exposure import is_open, plaintext, secrets, summary
from bridge_service.settings.fields import REQUIRED, Settings
from bridge_service.settings.policy import POLICY, policy
from bridge_service.settings.tls import verifies

__all__ = ["POLICY", "REQUIRED", "Settings", "is_open", "plaintext", "policy", "secrets", "summary", "verifies"]
