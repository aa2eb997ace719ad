"""Looks at what the bridge needs of PostgreSQL and Redis, each need with its remedy.

`check` runs all looks. Scheduler and worker run most of them at their start, see startup.py.
"""
