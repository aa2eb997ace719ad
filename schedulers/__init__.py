"""The scheduler process, `python -m schedulers`: listens, groups, plans and pushes."""
