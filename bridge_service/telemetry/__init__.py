"""What happened, reported once as a signal, and its subscribers: lines for people, JSON, numbers, incidents."""
