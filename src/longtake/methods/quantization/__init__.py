"""Methods that keep weights, and compute, in fewer bits."""
