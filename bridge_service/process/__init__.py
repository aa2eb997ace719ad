"""What scheduler and worker have in common: starting, living, being watched."""
