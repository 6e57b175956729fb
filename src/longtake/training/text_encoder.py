"""Train the starter's text encoder: a small T5 that translates any caption of a scene into its attributes.

The task is text to text, as T5 was made for: the caption (one of several paraphrases, sometimes inside words that say
nothing) goes in, the scene's canonical line comes out: "red ball roll-left ; blue cube still ; behind ; plain grey ; ...".
To answer, the encoder must bind each word to the object that it belongs to, which is what the denoiser needs from it.

A denoiser that gives text tokens no positions can use only what the states themselves hold. Left alone, T5 keeps the
states near the words' own embeddings and lets the decoder sort out who is who ("red" at both ends of a caption differed
by 1 %, measured). So the decoder reads a random share of the states, often a single one, and reads them through noise:
what a state says then has to be the whole scene, whichever word it sits on, and to stand out. Which of two shapes or
colours is whose is the last thing to be learned (0.30 of the shapes were wrong when all else was right), so their words
count several times in the loss. So do those of motions: without, a verb's state says which objects there are and not
which of them does it (it moved by 0.07 of its norm when two verbs changed places, by 0.28 with).

Muon (`longtake.training.muon`) learns this in a third of AdamW's steps: mean loss 0.34 after 300 steps of 48, AdamW
0.38 after 1,000. The decoder is thrown away; encoder and tokenizer are saved in the layout that any T5 is loaded from.

    python -m longtake.training.text_encoder --out runs/text
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich import print_json
from rich.progress import track
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5ForConditionalGeneration

from longtake.data.scenes.captions import canonical
from longtake.data.scenes.sampling import SceneOptions, sample_scene
from longtake.data.scenes.world import COLOURS, MOTIONS, SHAPES, TEXTURES
from longtake.errors import BadData
from longtake.training.optimizers import build_optimizers, set_rate
from longtake.training.recipe import OptimizerRecipe, ScheduleRecipe
from longtake.training.schedule import rate_share
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

Pair = tuple[str, str]

GENERAL_WORDS = """
a about above across after again against air all along also always an and animal another any are arm around as at away
baby back bag bank bar be beach bear beautiful because bed behind below bench beside best between big bike bird blurry
board boat body book both bottle bottom boy branch bread bridge bright bring building burn bus but butterfly by cake
calm camera candle car carry cartoon cat catch chair chase child cinematic circle city clean clear climb clip close
cloud clouds coast coat coffee cold colour color colourful come corner cow crowd cup curtain cut dance dark day deep
desert desk detail detailed dog door down dragon draw dress drift drink drive drop duck early earth eat edge egg empty
end evening eye face fall far farm fast feather field fire fish flag flat floor flow flower fly fog food foot for forest
four fox fresh friend from front fruit full garden ghost giant girl glass go golden good grass great ground group grow
hair hand hang happy hat have he head heavy high highly hill hold home horse hot house huge ice in inside into island
its job jump jungle keep kitchen kite lake lamp land landscape large late lava leaf left leg light like line lion little
long look loop low machine man many map market meadow metal middle mirror mist moment monkey moon morning mountain mouse
mouth move moving much music near neon new next night no noise nose not ocean of off old on one open orange or other out
over paint painting paper park path people person photo photograph picture piece pink place plane planet plant plate
play pool portrait pour pull push quality quick quiet rabbit rain rainbow realistic red ride right ring rise river road
robot rock roof room round run sad sail sand scene screen sea season see shadow sharp she ship shirt shoe shop short
show side silver sit skate sky sleep slow slowly small smile smoke smooth snow soft some space spin sports spring square
stand star stand stairs station step still stone stop storm street strong style sugar summer sun sunset surf sweet swim
table tail take tall that the their then there they thick thin thing this three through time to together top tower town
toward towards toy track train tree truck turn two umbrella under until up van very video view village walk wall warm
watch water wave we weather wheel where which while white wild wind window wing winter with woman wood wooden word world
yard year yellow you young zoom
""".split()
"""Common words that give the tokenizer sub-words for prompts about other things than scenes."""

_FILLERS = ("a video of {}", "video: {}", "{}, high quality", "a clip where {}", "{}, detailed, 3d render", "we see {}")


def train_tokenizer(
    captions: Sequence[str], *, vocab_size: int = 1024, max_length: int = 64
) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE on captions and common words.

    Every byte is in the vocabulary, so no prompt in any script contains an unknown token; words of the captions become
    one token each. Ids 0, 1, 2 are pad, end and unknown, as in T5; `max_length` counts the end mark.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Captions repeat their few words thousands of times, so those merge first; the common words share what is left.
    tokenizer.train_from_iterator([*captions, *(" ".join(GENERAL_WORDS),) * 2], trainer)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
    )


def scene_pairs(seeds: Sequence[int], options: SceneOptions | None = None) -> list[Pair]:
    """Return (caption, attribute line) of every paraphrase of the scenes sampled from `seeds`."""
    scenes = (sample_scene(seed, options or SceneOptions()) for seed in seeds)
    return [(caption, canonical(scene.attributes)) for scene in scenes for caption in scene.captions]


def small_t5(
    vocab_size: int, *, generator: torch.Generator, width: int = 128, layers: int = 3, heads: int = 4
) -> T5ForConditionalGeneration:
    """Build the T5 that is trained: `layers` encoder blocks, two decoder blocks, gated GELU, no dropout.

    Weights are drawn from `generator` by T5's rule: N(0, 1 / inputs) for linear maps, queries divided by sqrt(head
    width) besides, since T5 does not scale its scores. Embeddings are N(0, 0.2^2) and not T5's N(0, 1), which would
    drown what three layers add to them.
    """
    config = T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=width // heads,
        d_ff=3 * width,
        num_layers=layers,
        num_decoder_layers=2,
        num_heads=heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        relative_attention_max_distance=64,
        decoder_start_token_id=0,  # pyright: ignore[reportCallIssue]
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                spread = 0.2 if name.startswith("shared") else weight.shape[1] ** -0.5
                weight.normal_(0, spread / math.sqrt(config.d_kv) if ".q." in name else spread, generator=generator)
    return model


def train_text_encoder(
    pairs: Sequence[Pair],
    out: str | Path,
    *,
    steps: int = 1500,
    batch: int = 48,
    learning_rate: float = 4e-3,
    vocab_size: int = 1024,
    max_length: int = 64,
    width: int = 128,
    layers: int = 3,
    noise: float = 0.3,
    start: str | Path | None = None,
    settle: int = 400,
    stressed: Sequence[str] = (*SHAPES, *COLOURS, *MOTIONS),
    stress: float = 4.0,
    seed: int = 0,
    held_out: Sequence[Pair] = (),
) -> dict[str, float]:
    """Train tokenizer and T5 on (caption, attribute line) pairs and save `out/text_tokenizer` and `out/text_encoder`.

    `noise` is the standard deviation of what is added to the states, whose features are near 1. The words of `stressed`
    count `stress` times in the loss. With `start`, a folder that holds both already, training goes on from them: for
    `settle` steps the new decoder learns alone, and only then does the encoder move.

    Returns `loss` (mean of the last 20 steps), `seconds`, `parameters` (of the encoder) and, when `held_out` pairs are
    given, `accuracy`: the share of target tokens predicted right given those before them, and `accuracy_of_one_state`:
    the same when the decoder reads one random state of each caption. The numbers are also in `out/text_encoder.json`.
    Raises BadData when there are no pairs.
    """
    if not pairs:
        raise BadData("no captions to train a text encoder on: expected at least one (caption, attributes) pair")
    begun = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        texts = [text for pair in pairs for text in pair]
        tokenizer = train_tokenizer(texts, vocab_size=vocab_size, max_length=max_length)
        model, settle = small_t5(len(tokenizer), generator=generator, width=width, layers=layers), 0
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(Path(start) / "text_tokenizer")
        before = T5EncoderModel.from_pretrained(Path(start) / "text_encoder", dtype=torch.float32)
        model = small_t5(
            len(tokenizer), generator=generator, width=before.config.d_model, layers=before.config.num_layers
        )
        model.load_state_dict(before.state_dict(), strict=False)
    heavy = torch.tensor(tokenizer(" ".join(stressed), add_special_tokens=False)["input_ids"])
    parameters = {f"t5.{name}": weight for name, weight in model.named_parameters()}
    recipe = OptimizerRecipe(name="muon", lr=learning_rate, betas=[0.9, 0.98], weight_decay=0.01)
    optimizers = build_optimizers({"t5": model}, parameters, recipe)
    schedule = ScheduleRecipe(name="cosine", warmup=max(1, steps // 20), floor=0.02)
    losses: list[float] = []
    model.train()
    inner = [*model.encoder.parameters(), *model.shared.parameters()]
    for step in track(range(steps), description="text encoder", transient=True):
        rows = torch.randint(len(pairs), (batch,), generator=generator).tolist()
        drawn = [(_fill(pairs[row][0], generator), pairs[row][1]) for row in rows]
        keep = torch.rand(batch, generator=generator).square()
        logits, labels = _logits_and_labels(model, tokenizer, drawn, keep, generator, noise)
        weights = torch.where(torch.isin(labels, heavy), stress, 1.0) * (labels != -100)
        loss = (nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
        loss.backward()
        if step < settle:
            for parameter in inner:
                parameter.grad = None
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_rate(optimizers, rate_share(step, steps, schedule))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    model.eval()
    encoder = _encoder_half(model)
    report = {
        "loss": sum(losses[-20:]) / len(losses[-20:]),
        "seconds": time.perf_counter() - begun,
        "steps": steps,
        "parameters": sum(p.numel() for p in encoder.parameters()),
    }
    if held_out:
        report["accuracy"] = _accuracy(model, tokenizer, held_out, 1.0)
        report["accuracy_of_one_state"] = _accuracy(model, tokenizer, held_out, 0.0)
    out = Path(out)
    encoder.save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "text_tokenizer")
    (out / "text_encoder.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _fill(caption: str, generator: torch.Generator) -> str:
    """Put one caption in six inside words that say nothing, so that the encoder learns to look past them."""
    if torch.rand((), generator=generator) > 1 / 6:
        return caption
    return _FILLERS[int(torch.randint(len(_FILLERS), (), generator=generator))].format(caption)


def _logits_and_labels(
    model: T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    keep: Tensor | float,
    generator: torch.Generator,
    noise: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return next-token logits (B * L, V) under teacher forcing and labels (B * L,), -100 at padding.

    keep: share (B,) of the encoder's states that the decoder may read, drawn at random, at least one of each caption.
    noise: standard deviation of normal noise on the states.
    """
    captions = tokenizer([caption for caption, _ in pairs], padding=True, truncation=True, return_tensors="pt")
    targets = tokenizer([line for _, line in pairs], padding=True, truncation=True, return_tensors="pt")
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    real = captions["attention_mask"].bool()
    luck = torch.rand(real.shape, generator=generator).masked_fill(~real, 2.0)
    chance = torch.as_tensor(keep).expand(len(pairs))[:, None]
    read = (luck < chance) | (luck == luck.amin(1, keepdim=True))
    states = model.encoder(input_ids=captions["input_ids"], attention_mask=captions["attention_mask"])
    if noise:
        clean = states.last_hidden_state
        states.last_hidden_state = clean + noise * torch.randn(clean.shape, generator=generator)
    logits = model(
        encoder_outputs=states,
        attention_mask=read.long(),
        decoder_input_ids=nn.functional.pad(targets["input_ids"][:, :-1], (1, 0), value=0),  # shifted right
    ).logits
    return logits.flatten(0, 1), labels.flatten()


@torch.no_grad()
def _accuracy(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[Pair], keep: float
) -> float:
    logits, labels = _logits_and_labels(model, tokenizer, pairs, keep, torch.Generator().manual_seed(0))
    real = labels != -100
    return (logits.argmax(-1) == labels)[real].float().mean().item()


def _encoder_half(model: T5ForConditionalGeneration) -> T5EncoderModel:
    """Copy the shared embedding and the encoder into the class that pipelines load."""
    encoder = T5EncoderModel(model.config)
    own = encoder.state_dict()
    encoder.load_state_dict({key: value for key, value in model.state_dict().items() if key in own})
    return encoder.eval()


def main() -> None:
    """Train on sampled scenes and print what came out.

    Two thirds of the scenes have two objects, the hard case, and half of those side by side, each with a motion of its
    own; a fifth uses all that the renderer knows.
    """
    parser = argparse.ArgumentParser(description="train the starter's text encoder on captions of scenes")
    parser.add_argument("--out", required=True, help="folder for text_encoder/ and text_tokenizer/")
    parser.add_argument("--scenes", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", help="folder with text_encoder/ and text_tokenizer/ to go on from, such as a pipeline's"
    )
    options = parser.parse_args()
    everything = SceneOptions(shapes=SHAPES, colours=tuple(COLOURS), textures=("house", *TEXTURES), motions=MOTIONS)
    first, count = options.seed * options.scenes, options.scenes
    a, b, c, last = first + count // 5, first + count * 2 // 5, first + count * 7 // 10, first + count
    pairs = scene_pairs(range(first, a)) + scene_pairs(range(a, b), everything)
    pairs += scene_pairs(range(b, c), SceneOptions(pair_share=1.0))
    pairs += scene_pairs(range(c, last), SceneOptions(relations=("beside",)))
    # Plain captions state everything; a paraphrase may leave things out, and then nobody can know them.
    scenes = [sample_scene(seed, SceneOptions(split="held-out", pair_share=1.0)) for seed in range(256)]
    held_out = [(scene.caption, canonical(scene.attributes)) for scene in scenes]
    report = train_text_encoder(
        pairs, options.out, steps=options.steps, seed=options.seed, start=options.start, held_out=held_out
    )
    print_json(data=report)


if __name__ == "__main__":
    main()
