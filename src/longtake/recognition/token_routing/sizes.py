"""The sizes of the backbone. The paper names B0 to B5 after PVTv2 and gives no numbers that could be checked; ours are
those of PVTv2 where they are called so, and free choices otherwise."""

from typing import Any

from longtake.errors import UnknownName, nearest

SIZES: dict[str, dict[str, Any]] = {
    "nano": {"widths": (32, 64, 128, 256), "heads": (1, 2, 4, 8), "ratios": (4, 4, 4, 4), "columns": 6},
    "tiny": {"widths": (32, 64, 160, 256), "heads": (1, 2, 5, 8), "ratios": (4, 4, 4, 4), "columns": 8},
    "b0": {"widths": (32, 64, 160, 256), "heads": (1, 2, 5, 8), "ratios": (8, 8, 4, 4), "columns": 8},
}


def routing_config(size: str) -> dict[str, Any]:
    """Arguments of `TokenRoutingBackbone` for a size, "nano", "tiny" or "b0". Raises UnknownName."""
    if size not in SIZES:
        raise UnknownName(f"no token routing backbone is called '{size}'.{nearest(size, SIZES)}")
    return dict(SIZES[size])
