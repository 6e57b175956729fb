"""Methods that act before a step of the sampler, on the sample itself."""
