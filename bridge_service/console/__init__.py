"""The web process: one page for people, probes for a platform, numbers for Prometheus. All of it only reads.

It asks PostgreSQL and Redis when somebody asks it, at most once every two seconds, and costs nothing otherwise.
"""
