"""Lays the machine into the app's database, brings it up to date, and takes it out again."""
