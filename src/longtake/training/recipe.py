"""Recipes: what a training does, as YAML checked against the dataclasses of this file.

Every key of a recipe is a field below, or one of a network's in `network_recipes`; an unknown key or a value of the wrong
kind is a `BadRecipe` that names the key.
Fields called ``config`` or ``options`` hold keyword arguments of a network or data class; the class checks those.

A recipe with ``stages`` is a chain: each stage is the recipe itself with the stage's own keys laid over it, runs in
``OUT/STAGE``, and may start from what an earlier stage exported by writing ``init_from: stage:NAME``.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from longtake.errors import BadRecipe, nearest
from longtake.training.network_recipes import (
    BackboneRecipe,
    ClassifierRecipe,
    GptRecipe,
    TextRecipe,
    TokenizerRecipe,
    one_of,
)


@dataclass
class DataRecipe:
    """Where clips come from and how many make a step."""

    kind: str = one_of("scenes", "videos", "latents", "images")
    root: str | None = None  # videos: folder or table; scenes: rendered ahead (optional); latents: folder of shards;
    # images (classifier): folder with a folder of images for each class
    preset: str | None = None  # videos: ucf101, sky-timelapse, ... (layout, split and preprocessing)
    frames: int = 17
    height: int = 64
    width: int = 64
    stride: int | None = None  # videos: source frames from one taken frame to the next; None: the preset's
    fps: float | None = None  # videos: resample to this rate first; scenes: render at this rate; None: as it is, and 8
    view: str = one_of("pixels", "sound")  # sound: a tokenizer's clips are 64x16 spectrograms of the scenes' sound
    flip: float | None = None  # videos: share of clips that are mirrored; None: the preset's. images: None is 0
    window_seconds: float | None = None  # videos: cut each file into windows of this length, each an item of its own
    preload: int = 0  # videos: decode so many windows of each item at the start and keep them in memory; 0: none
    count: int = 100_000  # scenes: how many
    rendered_frames: int | None = None  # scenes: frames of a rendered clip, of which ``frames`` in a row are taken
    cut: str = one_of(
        "pixels", "latents"
    )  # latents: these are taken anew in every epoch from the cached ids of whole clips
    held_out: int = 64  # clips kept out of training, for validation; videos and latents: at most a quarter of them
    options: dict[str, Any] = field(default_factory=dict)  # fields of SceneOptions or FolderOptions
    cache: str | None = None  # folder to render scenes, or to encode latents, into once; None: in every epoch again
    batch_size: int = 16  # clips per optimiser step, over all processes and micro-batches
    accumulate: int = 1  # micro-batches per process and step
    workers: int = 1  # worker processes that prepare batches (0: the training process does it)
    share: float = 1.0  # how often a step draws from this set, relative to those under ``mix``
    mix: list[Any] = field(default_factory=list)  # further sets, each a mapping of the keys above that differ


@dataclass
class BudgetRecipe:
    """What share of its work a network that chooses its width and tokens may do (DyDiT); nothing for others."""

    share: float = 1.0  # at the end
    hold: int = 100  # steps at a share of 1, at first
    fall: int = 1000  # steps over which it then falls
    whole: int = 30_000  # steps in which the network with everything on is trained beside, at the same cost again
    temperature: float = 5.0  # of the gradients of its decisions; the lower, the fewer are in question at a time
    settle: int | None = None  # steps after which it decides without noise, as it does in use; None: never


@dataclass
class ObjectiveRecipe:
    """What is predicted at which noise levels, and what the generator is given beside the noise."""

    predicts: str = one_of("velocity", "noise")  # velocity: flow matching; noise: 1,000 steps, sigmas: uniform
    sigmas: str = one_of("mode", "lognorm", "uniform")
    shift: float = 3.0
    strata: int = 1  # the samples of a batch are drawn in turns from so many equal parts of the distribution
    prompt_dropout: float = 0.1  # share of samples whose prompt or class is emptied (for classifier-free guidance)
    images: int = 0  # latte: single frames of other clips beside each clip
    image_rate: float = 0.2  # share of samples that are given frames
    first: float = 0.6  # of these: the first frame,
    first_last: float = 0.2  # the first and the last,
    continuation: float = 0.2  # or the first few latent frames
    alignment: float = 0.0  # scenes: weight of reading each token's object off the states inside the backbone
    alignment_block: int = 4  # behind so many blocks
    budget: BudgetRecipe = field(default_factory=BudgetRecipe)


@dataclass
class OptimizerRecipe:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest."""

    name: str = one_of("adamw", "muon")
    lr: float = 1e-3  # AdamW's rate
    muon_lr: float | None = None  # Muon's rate, on AdamW's scale (RMS-matched); None: the same as lr
    router_lr: float | None = None  # AdamW's rate for what decides what is computed, such as routers; None: as the rest
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01  # on matrices only
    momentum: float = 0.95  # Muon's
    muon_steps: int = 5  # Newton-Schulz iterations
    clip_norm: float = 1.0  # 0: no clipping
    clip_after: int = 0  # steps that are taken before gradients are clipped


@dataclass
class ScheduleRecipe:
    """The learning rate over the steps, as a share of the optimiser's rate."""

    name: str = one_of("cosine", "constant", "trapezoid")
    warmup: int = 100  # steps of linear rise
    decay: float = 0.2  # trapezoid: the share of all steps over which the rate falls at the end
    floor: float = 0.0  # share that is left at the last step


@dataclass
class EmaRecipe:
    """The moving average of the weights that is validated, sampled from and exported."""

    decay: float = 0.999  # target; after n steps it is min(decay, (1 + n) / (10 + n)). 0: no average


@dataclass
class CheckpointRecipe:
    """When to write checkpoints and which to keep."""

    every: int = 500  # and behind the last step; 0: never, not even there
    keep: int = 2  # the last so many
    best: bool = True  # and the one with the lowest validation loss
    export: bool = False  # also export the models with each checkpoint


@dataclass
class ValidationRecipe:
    """The loss on held-out clips, at fixed noise, with the averaged weights."""

    every: int = 500  # 0: never
    batch_size: int = 16


@dataclass
class SamplesRecipe:
    """Clips to look at while training."""

    every: int = 1000  # 0: never
    prompts: list[str] = field(default_factory=list)  # generator; empty: held-out captions
    count: int = 8
    steps: int = 20
    guidance: float = 4.0
    seed: int = 0


@dataclass
class ParallelRecipe:
    """How the processes of torchrun share the work; without torchrun there is one process."""

    kind: str = one_of("ddp", "fsdp", "hsdp")
    shards: int | None = None  # hsdp: processes that share one copy of the weights


@dataclass
class Recipe:
    """One training."""

    task: str = one_of("generator", "tokenizer", "classifier", "gpt")
    name: str = "training"
    out: str = "runs/training"
    seed: int = 0
    steps: int = 1000
    minutes: float | None = None  # stop with a checkpoint after so many minutes
    device: str = "auto"  # auto: cuda if there is one, else cpu
    precision: str = one_of("bf16", "fp32")  # bf16: autocast; weights and their average stay fp32
    gradient_checkpointing: bool = False
    compile: bool = False  # torch.compile for the backbone's blocks: a minute at the start, then faster steps
    log_every: int = 10  # steps from one look at the losses to the next; each step is recorded all the same
    export: bool = True  # write the models to OUT/export at the end
    data: DataRecipe = field(default_factory=DataRecipe)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    backbone: BackboneRecipe = field(default_factory=BackboneRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    classifier: ClassifierRecipe = field(default_factory=ClassifierRecipe)
    gpt: GptRecipe = field(default_factory=GptRecipe)
    objective: ObjectiveRecipe = field(default_factory=ObjectiveRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    ema: EmaRecipe = field(default_factory=EmaRecipe)
    checkpoint: CheckpointRecipe = field(default_factory=CheckpointRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)
    samples: SamplesRecipe = field(default_factory=SamplesRecipe)
    parallel: ParallelRecipe = field(default_factory=ParallelRecipe)
    stages: dict[str, Any] = field(default_factory=dict)  # name -> keys laid over this recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> list[Recipe]:
    """Read a recipe file and return its stages, in order (one for a plain recipe).

    Args:
        path: a YAML file.
        overrides: ``key=value`` with dots for nested keys (``data.root=clips``). They win over the file and hold for
            every stage; ``stages.NAME.key=value`` holds for one.

    Raises:
        BadRecipe: no such file, not YAML, an unknown key, or a value of the wrong kind.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = Path(path)
    if not path.is_file():
        raise BadRecipe(f"{path}: no such recipe file; expected the path of a YAML file, such as recipes/starter.yaml.")
    for text in overrides:
        if "=" not in text:
            raise BadRecipe(f"override '{text}': expected key=value.")
    try:
        written = OmegaConf.to_container(OmegaConf.load(path))
        given = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, OSError, ValueError) as error:
        raise BadRecipe(f"{path}: not readable as YAML ({_first_line(error)}).") from error
    except Exception as error:  # yaml's own errors share no base with those above
        if type(error).__module__.split(".")[0] != "yaml":
            raise
        raise BadRecipe(f"{path}: not readable as YAML ({_first_line(error)}).") from error
    if not isinstance(written, dict) or not isinstance(given, dict):
        raise BadRecipe(f"{path}: expected keys and values, such as 'task: tokenizer'.")
    return resolve(written, given, str(path))


def resolve(written: dict[Any, Any], overrides: dict[Any, Any], source: str = "recipe") -> list[Recipe]:
    """Check keys and values of a recipe given as nested dictionaries; see `load_recipe`."""
    stages = written.get("stages") or {}
    stage_overrides = overrides.get("stages") or {}
    base = {key: value for key, value in written.items() if key != "stages"}
    everywhere = {key: value for key, value in overrides.items() if key != "stages"}
    if not isinstance(stages, dict) or not isinstance(stage_overrides, dict):
        raise BadRecipe(f"{source}: stages: expected a mapping from a stage's name to its keys.")
    for name in stage_overrides:
        if name not in stages:
            raise BadRecipe(f"{source}: no stage '{name}'.{nearest(str(name), map(str, stages))}")
    if not stages:
        return [_build([base, everywhere], source)]
    whole = _build([base, everywhere], source)
    recipes = []
    for name, stage in stages.items():
        layers = [base, stage or {}, everywhere, stage_overrides.get(name) or {}]
        recipe = _build(layers, source, f"stages.{name}.")
        recipe.out = str(Path(whole.out) / str(name))
        recipe.name = f"{whole.name}/{name}"
        gpt = recipe.gpt
        networks = (recipe.tokenizer, recipe.backbone, recipe.text, recipe.classifier, gpt, gpt.keys, gpt.audio)
        for part in networks:
            if part.init_from and part.init_from.startswith("stage:"):
                earlier = part.init_from.removeprefix("stage:")
                if earlier not in [r.name.split("/")[-1] for r in recipes]:
                    raise BadRecipe(
                        f"{source}: stages.{name}: init_from stage:{earlier}: no earlier stage of that name."
                    )
                part.init_from = str(Path(whole.out) / earlier / "export")
        recipes.append(recipe)
    return recipes


def data_parts(data: DataRecipe) -> list[DataRecipe]:
    """The data sets of a recipe: its own, then those of ``mix``. The batch is the same for all.

    Raises:
        BadRecipe: an entry of ``mix`` has an unknown key, or one that holds for the whole batch.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = replace(data, mix=[])
    parts = [own]
    for number, keys in enumerate(data.mix):
        where = f"data.mix.{number}"
        _check_keys(keys, DataRecipe, "recipe", f"{where}.")
        for key in ("batch_size", "accumulate", "workers", "held_out", "view", "mix"):
            if key in keys:
                raise BadRecipe(f"{where}.{key}: holds for all data; set it under data.")
        try:
            part: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(own), keys))
        except OmegaConfBaseException as error:
            raise BadRecipe(f"{where}.{error.full_key or ''}: {_first_line(error)}.") from error
        _check_values(part, "recipe", f"{where}.")
        parts.append(part)
    return parts


def check_arguments(function: Callable[..., Any], arguments: dict[str, Any], where: str) -> None:
    """Refuse keys that a class or function does not take.

    Raises:
        BadRecipe: names the key, the recipe's section and the nearest argument that is known.
    """
    known = [name for name in inspect.signature(function).parameters if name not in ("self", "args", "kwargs")]
    for key in arguments:
        if key not in known:
            raise BadRecipe(f"{where}.{key}: unknown key.{nearest(str(key), known)}")


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every default filled in."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def _build(layers: list[dict[Any, Any]], source: str, prefix: str = "") -> Recipe:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for layer in layers:
        _check_keys(layer, Recipe, source, prefix)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Recipe), *layers)
        recipe = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise BadRecipe(f"{source}: {prefix}{error.full_key or ''}: {_first_line(error)}.") from error
    assert isinstance(recipe, Recipe)
    _check_values(recipe, source, prefix)
    data_parts(recipe.data)
    return recipe


def _check_keys(layer: Any, schema: type, source: str, path: str) -> None:
    if not isinstance(layer, dict):
        raise BadRecipe(f"{source}: {path.rstrip('.') or 'recipe'}: expected keys and values, got {layer!r}.")
    known = {f.name: f for f in fields(schema)}
    for key, value in layer.items():
        if key not in known:
            raise BadRecipe(f"{source}: unknown key '{path}{key}'.{nearest(str(key), known)}")
        inner = known[key].default_factory
        if isinstance(inner, type) and is_dataclass(inner):
            _check_keys(value, inner, source, f"{path}{key}.")


def _check_values(recipe: Any, source: str, path: str) -> None:
    for f in fields(recipe):
        value = getattr(recipe, f.name)
        choices = f.metadata.get("choices")
        if is_dataclass(value):
            _check_values(value, source, f"{path}{f.name}.")
        elif choices and value not in choices:
            raise BadRecipe(f"{source}: {path}{f.name}: no '{value}'.{nearest(str(value), choices)}")
        elif isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
            raise BadRecipe(f"{source}: {path}{f.name}: {value} is negative.")
        elif value == 0 and f.name in _AT_LEAST_ONE:
            raise BadRecipe(f"{source}: {path}{f.name}: expected at least 1, got 0.")


_AT_LEAST_ONE = {
    "steps",
    "batch_size",
    "accumulate",
    "frames",
    "height",
    "width",
    "log_every",
    "keep",
    "count",
    "held_out",
    "strata",
}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
