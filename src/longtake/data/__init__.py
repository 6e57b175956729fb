"""Training data: procedural scenes, folders of real videos, cached latents, and the order that training sees them in."""
