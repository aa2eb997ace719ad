"""What the bridge needs of PostgreSQL and Redis, each need a look of its own with a remedy.

`check` looks at all of it; scheduler and worker look at most of it when they start, see startup.py.
"""
