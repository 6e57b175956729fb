"""Named settings for folders of videos: what Latte and TATS do with four data sets, and what we do by default.

A preset is written ``name/flavour``, such as ``ucf101/latte``; without a flavour it is ours. Our flavours take 17
frames (a whole number of latent frames), every start, antialiased bicubic, and mirror only where nothing is left- or
right-handed. TATS publishes no setting for FaceForensics: ``faceforensics/tats`` applies its rule for videos.
"""

from dataclasses import dataclass, fields, replace

from longtake.data.resize import WAYS
from longtake.data.windows import RULES, WindowRule
from longtake.errors import BadInput, UnknownName, nearest

TAKES = ("random", "every", "middle")
PROMPTS = ("auto", "name", "none")


@dataclass(frozen=True)
class Preset:
    """Complete settings, each with our default.

    Attributes:
        name: written into caches, checkpoints and results. Settings of one's own add ``+``.
        frames: frames of a clip. stride: source frames from one to the next.
        fps: resample by time to this rate first (None: as it is).
        height, width: of a clip.
        window: the rule of `longtake.data.windows`. resize: the way of `longtake.data.resize`.
        longer: take only videos with more than frames * stride frames.
        take: "random": one random window per video and epoch; "every": each window is an item; "middle": the middle
            window of each video, for validation.
        every: with take="every", keep one start out of so many.
        flip: probability of mirroring a clip. Clips whose prompt says left or right are never mirrored, except in
            the published flavours, which do.
        layout: the layout to insist on, or None to recognise it. split: "train", "test", "val", "all" or None.
    """

    name: str = "ours"
    frames: int = 17
    stride: int = 1
    fps: float | None = None
    height: int = 64
    width: int = 64
    window: str = "ours"
    resize: str = "ours"
    longer: bool = False
    take: str = "random"
    every: int = 1
    flip: float = 0.0
    layout: str | None = None
    split: str | None = None

    @property
    def rule(self) -> WindowRule:
        """The window rule with its numbers."""
        return WindowRule(self.frames, self.stride, self.window, self.fps, self.longer)


def _latte(name: str, window: str, resize: str, flip: float, layout: str, longer: bool = False) -> Preset:
    return Preset(
        f"{name}/latte",
        frames=16,
        stride=3,
        height=256,
        width=256,
        window=window,
        resize=resize,
        flip=flip,
        layout=layout,
        longer=longer,
        split="all",
    )


def _tats(name: str, images: bool, layout: str, stride: int = 1, split: str = "all") -> Preset:
    return Preset(
        f"{name}/tats",
        frames=16,
        stride=stride,
        height=128,
        width=128,
        window="tats-step" if images else "tats",
        resize="tats-image" if images else "tats",
        take="random" if images else "every",
        layout=layout,
        split=split,
    )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(),
        _latte("ucf101", "latte", "latte", 0.5, "L1"),
        _latte("faceforensics", "latte", "latte", 0.5, "L3"),
        _latte("sky-timelapse", "latte-step", "latte-sky", 0.0, "L4", longer=True),
        _latte("taichi-hd", "latte-step", "as-is", 0.5, "L4"),
        _tats("ucf101", False, "L2", split="train"),
        _tats("faceforensics", False, "L3"),
        _tats("sky-timelapse", True, "L4"),
        _tats("taichi-hd", True, "L4", stride=4),
        Preset("ucf101/ours", stride=3, height=256, width=256),
        Preset("faceforensics/ours", stride=3, height=256, width=256, flip=0.5),
        Preset("sky-timelapse/ours", stride=3, height=256, width=256),
        Preset("taichi-hd/ours", stride=3, height=256, width=256, flip=0.5),
    )
}


@dataclass(frozen=True)
class FolderOptions:
    """What to change in a preset, and how to read what is there. None leaves the preset's value.

    Attributes:
        preset: "ours", "ucf101", "ucf101/latte", ... ; the other fields of `Preset` have the same names here.
        window_seconds: cut each video into pieces of this length, each of them an item (a random window inside it).
        columns: own names of a table's columns, see `longtake.data.tables`.
        class_prompts: prompt of each class folder; others get their name in words.
        prompts: "auto": from table, sidecar file or class; "name": the file's name in words where auto finds none;
            "none": empty prompts.
        folder_fps: frame rate of folders of frames, which cannot tell.
        index: file that keeps the result of the index pass, so that the next start opens no video; None keeps none.
    """

    preset: str = "ours"
    frames: int | None = None
    stride: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    take: str | None = None
    every: int | None = None
    flip: float | None = None
    layout: str | None = None
    split: str | None = None
    window_seconds: float | None = None
    columns: dict[str, str] | None = None
    class_prompts: dict[str, str] | None = None
    prompts: str = "auto"
    folder_fps: float = 25.0
    index: str | None = None


def find_preset(name: str) -> Preset:
    """Look a preset up; a name without a flavour is ours.

    Raises:
        UnknownName: there is none of that name; names the nearest.
    """
    preset = PRESETS.get(name) or PRESETS.get(f"{name}/ours")
    if preset is None:
        raise UnknownName(f"Unknown data preset '{name}'.{nearest(name, PRESETS)}")
    return preset


def resolve(options: FolderOptions) -> Preset:
    """Lay options over their preset and check the result.

    Raises:
        UnknownName: the preset, `take` or `prompts` has no such value. BadInput: a number is out of range, or a published
            flavour is asked for what it cannot do (resampling, another shape than a square).
    """
    base = find_preset(options.preset)
    own = {
        field.name: getattr(options, field.name)
        for field in fields(Preset)
        if field.name in FolderOptions.__dataclass_fields__ and getattr(options, field.name) is not None
    }
    preset = replace(base, **own)
    if preset != base:
        preset = replace(preset, name=f"{base.name}+")
    for value, known in (
        (preset.take, TAKES),
        (options.prompts, PROMPTS),
        (preset.window, RULES),
        (preset.resize, WAYS),
    ):
        if value not in known:
            raise UnknownName(f"Unknown value '{value}'.{nearest(value, known)}")
    if min(preset.height, preset.width, preset.every) < 1 or not 0 <= preset.flip <= 1:
        raise BadInput(
            f"height={preset.height}, width={preset.width}, every={preset.every}, flip={preset.flip}: "
            "expected sizes and every of at least 1, flip between 0 and 1."
        )
    if preset.resize not in ("ours", "as-is") and preset.height != preset.width:
        raise BadInput(f"{base.name} makes square clips, not {preset.width}x{preset.height}: use preset 'ours'.")
    if options.window_seconds is not None and not options.window_seconds > 0:
        raise BadInput(f"window_seconds is {options.window_seconds}; it must be above zero.")
    preset.rule  # noqa: B018 - checks frames, stride and fps
    return preset
