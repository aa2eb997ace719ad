"""Lays the machine into the app's database, brings it up to date, and removes it."""
