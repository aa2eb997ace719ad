from __future__ import annotations

BREAKAGES = []


def table():
    return ""


def summary(v):
    return ""
