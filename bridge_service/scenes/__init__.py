"""What `validate` and the demo play on a running bridge, and the judge of its rows."""
