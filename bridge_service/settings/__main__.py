"""`make docs` writes the variables into docs/CONFIGURATION.md, .env.example and compose.yaml."""

import sys

from bridge_service.settings.pages import PAGES, ROOT

for name, written in PAGES.items():
    file = ROOT / name
    before = file.read_text(encoding="utf-8")
    if (after := written(before)) != before:
        file.write_text(after, encoding="utf-8")
        sys.stdout.write(f"{name} is written again\n")
