"""One module a command; cli.py says how each is called.

`run(settings, output, ...)` does the work and returns whether what was asked holds. It raises a BridgeError when it
could not be done at all.
"""
