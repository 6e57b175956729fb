"""Sound as TATS's condition: which stretch of it stands in front of which window, as ids of a second tokenizer.

    window of the base    the sound of its own W latent frames
    window of key frames  that of all frames from its first key to its last, s (W - 1) + 1 latent frames
    gap                   that of its s + 1 latent frames, both ends among them

So every window hears what belongs to the frames that it writes, however far into the video it has slid. Each stretch is
encoded by itself, as in training. Behind the end of a sound it is silent.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from longtake.errors import BadInput
from longtake.tokenizers.vqgan3d import VQGAN3d

STRETCHES_AT_ONCE = 32


def stretch_tokens(ears: VQGAN3d, heard: Tensor, starts: Sequence[int], frames: int) -> Tensor:
    """Tokens of stretches of a sound: int64 (1, len(starts), m), on the CPU.

    Args:
        ears: the tokenizer of spectrograms.
        heard: spectrogram (1, 1, T, rows, columns) in [-1, 1], one frame of it for each frame of the video.
        starts: the latent frame that each stretch begins with. frames: latent frames of each.

    Raises:
        BadInput: a spectrogram of another form. BadSize: of another size than the tokenizer takes.
    """
    if heard.ndim != 5 or heard.shape[:2] != (1, 1):
        raise BadInput(f"audio of shape {tuple(heard.shape)}; expected a spectrogram (1, 1, frames, rows, columns)")
    step = ears.stride[0]
    end = (max(starts) + frames) * step
    heard = F.pad(heard, (0, 0, 0, 0, 0, max(0, end - heard.shape[2])), value=-1.0)
    windows = torch.stack([heard[0, :, start * step : (start + frames) * step] for start in starts])
    made = [ears.encode(part.to(ears.device)).flatten(1).cpu() for part in windows.split(STRETCHES_AT_ONCE)]
    return torch.cat(made)[None]
