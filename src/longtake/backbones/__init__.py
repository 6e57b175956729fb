"""Denoisers, one readable file per architecture."""
