"""Measures of what a model made, each with its protocol and its own error."""
