"""Answers HTTP: probes for a platform, numbers for Prometheus, the console for people.

A visitor's request asks PostgreSQL and Redis at most once in LOOK_SECONDS or READY_SECONDS.
"""
