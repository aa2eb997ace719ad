"""What an operator types: `python -m bridge_service COMMAND`."""
