"""Objectives, guidance, conditions and the sampling loop."""
