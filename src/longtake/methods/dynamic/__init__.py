"""Networks that spend tokens and width where they matter."""
