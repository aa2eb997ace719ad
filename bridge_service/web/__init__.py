"""All that answers HTTP: probes for a platform, numbers for Prometheus, one page for people. All of it only reads.

PostgreSQL and Redis are asked only when a visitor asks, and never more often than the pages say.
"""
