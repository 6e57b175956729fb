"""longtake."""
