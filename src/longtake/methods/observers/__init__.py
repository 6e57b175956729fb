"""Methods that change nothing and note what they see."""
