"""Feature networks: what clips are seen by before a distance is taken, always named with the number."""

from longtake.evaluation.networks.contract import FeatureNetwork, label
from longtake.evaluation.networks.finding import load_network

__all__ = ["FeatureNetwork", "label", "load_network"]
