"""What is true: the tables, one SQL function for each step, and each step as a Python call.

Nothing here waits for anything except PostgreSQL, and nothing here talks to Redis or to people.
"""
