"""Wall time of the parts of a run."""

import time

import torch


class Clock:
    """Seconds since the last lap, waiting for a GPU to finish.

    Args:
        device: of the run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self) -> float:
        """Seconds since this was last asked, or since the beginning."""
        start, self.start = self.start, self._now()
        return self.start - start
