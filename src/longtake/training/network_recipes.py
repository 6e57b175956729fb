"""The part of a recipe that says which networks are trained, and which are used beside them; see `recipe`."""

from dataclasses import dataclass, field
from typing import Any


def one_of(default: str, *others: str) -> Any:
    """A string field that takes one of a few names."""
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass
class ModelRecipe:
    """A network: from a trained folder, or new with this configuration."""

    init_from: str | None = None  # starter, DIR, stage:NAME
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class BackboneRecipe(ModelRecipe):
    """The denoiser. A new Latte's ``config`` may name a published ``size`` ("S/2") beside the arguments of the class."""

    kind: str = one_of("waver", "latte")
    flexdit: dict[str, Any] = field(default_factory=dict)  # convert it: layout, and arguments of flexdit.Density
    dydit: dict[str, Any] | None = None  # convert it: arguments of dydit.to_dydit; {} converts with all defaults


@dataclass
class TokenizerRecipe(ModelRecipe):
    """The tokenizer; the task ``tokenizer`` trains it, the others encode with it."""

    kind: str = one_of("causal", "vqgan")  # of a new one, and of the training: CausalVAE, or VQGAN3d
    per_frame: bool | None = None  # every frame an image of its own, as Latte encodes clips; None: as it is
    draw: bool = False  # generator, without a cache: latents are drawn from the posterior, not its mean

    train: str = one_of("all", "decoder")  # decoder: the latent space stays as it is
    measure: bool = True  # measure the latents' mean and deviation at the end and store them
    measure_clips: int = 256
    loss: dict[str, Any] = field(default_factory=dict)  # weights of TokenizerLoss or VqganLoss: l1, perceptual, ...
    discriminator: dict[str, Any] = field(default_factory=dict)  # of PatchDiscriminator, used where loss.gan is not 0


@dataclass
class TextRecipe(ModelRecipe):
    """The text encoder (T5) and its tokenizer: a folder that holds ``text_encoder`` and ``text_tokenizer``."""

    train: bool = False  # together with the backbone


@dataclass
class ClassifierRecipe(ModelRecipe):
    """A token routing backbone that names what images show (task ``classifier``).

    ``config`` may name a ``size`` ("nano") beside the arguments of `TokenRoutingBackbone`; the data brings the classes.
    """

    label_smoothing: float = 0.1
    budget: float = 1.0  # share of its multiply-accumulates that it may use in the end
    budget_weight: float = 10.0  # of the loss of being above the budget
    budget_hold: float = 0.1  # share of the training in which the budget is 1, at first
    budget_reached: float = 0.5  # share of the training at which it has fallen to the end


@dataclass
class GptRecipe(ModelRecipe):
    """A GPT over the ids of a VQGAN (task ``gpt``): one of TATS's. ``config``: width, depth and heads of `GPT`.

    The clip of ``data.frames`` is encoded as a whole; ``base`` learns all its latent frames, ``keys`` every
    ``spacing``-th of them, ``gaps`` those between its first and its last, which are ``spacing`` apart.
    """

    role: str = one_of("base", "keys", "gaps")
    spacing: int = 4
    condition: str = one_of("none", "class", "text", "audio")
    context: int | None = None  # latent frames that a sampled video looks back at; None: all but one of the window
    top_k: int = 2048  # of sampling, as exported
    top_p: float = 0.8
    keys: ModelRecipe = field(default_factory=ModelRecipe)  # gaps: the trained keys that it is exported with
    audio: ModelRecipe = field(default_factory=ModelRecipe)  # condition audio: the trained VQGAN of sounds
