"""A calibration in words: one line for each setting that is tried, and what came of it."""

import re
from dataclasses import asdict

from longtake.calibration.targets import verdict, written
from longtake.comparison.table import count
from longtake.methods.profiles import Numbers, Profile, Tried


def tried_line(tried: Tried) -> str:
    """A setting and its numbers, or why it has none."""
    return f"{tried.method:32} {tried.error if tried.numbers is None else numbers_told(tried.numbers)}"


def lines(profile: Profile) -> list[str]:
    """What was chosen, its numbers on either clips, and what became of each target."""
    said = [
        f"{profile.method} of {count(len(profile.tried), 'setting')} tried, for {' and '.join(profile.targets)}",
        f"calibration, {count(profile.calibration.clips, 'clip')}: {numbers_told(profile.calibration)}",
        f"held out, {count(profile.held_out.clips, 'clip')}: {numbers_told(profile.held_out)}",
    ]
    if profile.held_out.macs == 1:
        said.append(
            f"{profile.method} saves no multiply-accumulates; of settings that cost the same the boldest is taken"
        )
    return [*said, *(f"{verdict(one)}, held out" for one in profile.outcomes), profile.path]


def missed(profile: Profile) -> str:
    """The targets that held-out clips missed, by how much, and what can be done, in one line."""
    which = " and ".join(verdict(one) for one in profile.outcomes if one.missed)
    names = {re.split("[<>]", one.target)[0] for one in profile.outcomes if one.missed}
    remedy = "aim higher, or calibrate on more prompts" if names != {"speedup"} else "aim higher, or at an idle machine"
    return f"{profile} was written, and on {count(profile.held_out.clips, 'held-out clip')} {which}; {remedy}"


def numbers_told(numbers: Numbers) -> str:
    """All that was measured, in one line."""
    known = {name: value for name, value in asdict(numbers).items() if value is not None}
    spread = f" ({numbers.low:.2f}-{numbers.high:.2f})" if numbers.low is not None and numbers.high is not None else ""
    names = [name for name in ("psnr", "ssim", "latent", "macs", "speedup") if name in known]
    return ", ".join(f"{name} {written(name, known[name])}" for name in names) + spread
