"""Carries a turn's id from the scheduler to a worker through Redis, and is trusted with nothing."""
