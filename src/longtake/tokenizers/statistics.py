"""Mean and deviation of each latent channel, measured over clips in one pass."""

from collections.abc import Iterable

import torch
from torch import Tensor

from longtake.errors import BadInput
from longtake.tokenizers.causal_vae import CausalVAE


class ChannelStatistics:
    """Streaming mean and variance of each channel, in float64, by the pairwise update of Chan et al. (1979).

    It does not lose digits where the mean is large beside the deviation, as sums of squares do.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(())
        self._square = torch.zeros(())  # sum of squared deviations from the mean so far

    def add(self, values: Tensor) -> None:
        """Take in values (B, C, ...); batches may differ in every size but C."""
        values = values.detach().double().movedim(1, 0).flatten(1)  # (C, n)
        count, mean = values.shape[1], values.mean(1)
        square = (values - mean[:, None]).square().sum(1)
        total, shift = self.count + count, mean - self._mean.to(mean)
        self._square = self._square.to(mean) + square + shift.square() * (self.count * count / total)
        self._mean = self._mean.to(mean) + shift * (count / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """(C,), float64."""
        return self._mean

    @property
    def std(self) -> Tensor:
        """(C,), float64, of the whole population."""
        return (self._square / max(self.count, 1)).sqrt()


@torch.no_grad()
def measure_statistics(vae: CausalVAE, clips: Iterable[Tensor], *, store: bool = True) -> tuple[Tensor, Tensor]:
    """Encode clips and measure each latent channel of the posterior's mean.

    Args:
        vae: the tokenizer; what statistics it holds does not matter.
        clips: pixels (B, 3, T, H, W) in [-1, 1]; sizes may differ from clip to clip.
        store: put the result into the tokenizer's config, so that it is saved with it.

    Returns:
        (mean, std), each (C,), float64. A channel that is constant gets deviation 1e-6: it can still be normalised.

    Raises:
        BadInput: there was no clip.
        BadSize: a clip that the tokenizer cannot take.
    """
    statistics = ChannelStatistics()
    training = vae.training
    vae.eval()
    try:
        for pixels in clips:
            statistics.add(vae.posterior(pixels.to(vae.device))[0])
    finally:
        vae.train(training)
    if not statistics.count:
        raise BadInput("no clips to measure the latents' statistics on; expected at least one")
    mean, std = statistics.mean.cpu(), statistics.std.clamp(min=1e-6).cpu()
    if store:
        vae.set_statistics(mean, std)
    return mean, std
