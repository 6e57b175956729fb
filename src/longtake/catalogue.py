"""One row for each published system that the library is to hold, and what of it is there.

A row without a module is planned: nothing of it can be called yet. A row with a module and a `missing` note is partly
there. `module`, `claim` and `missing` are facts about this checkout; a test imports every module that is named.
"""

from dataclasses import dataclass

from longtake.errors import UnknownName, nearest


@dataclass(frozen=True)
class System:
    """One published system.

    Args:
        name: as its module, its page and its claim are called.
        title: as its authors write it.
        floor: folder of the library in which it stands or will stand.
        papers: arXiv ids, separated by a space.
        summary: what it does, one line.
        module: dotted name, None while nothing of it is there.
        claim: name of its experiment in `claims/`, None while there is none.
        missing: what a system with a module still lacks; "" when it is complete.
        page: its page in the repository, None while there is none.
        beside: not one of the published systems that the library is to hold, but a small method beside them, which needs
            no claim.
    """

    name: str
    title: str
    floor: str
    papers: str
    summary: str
    module: str | None = None
    claim: str | None = None
    missing: str = ""
    page: str | None = None
    beside: bool = False

    @property
    def status(self) -> str:
        """`planned`, `partial` or `complete`."""
        if self.module is None:
            return "planned"
        return "partial" if self.missing or (self.claim is None and not self.beside) else "complete"


# fmt: off
SYSTEMS: tuple[System, ...] = (
    System("latte", "Latte", "backbones", "2401.03048",
           "latent video diffusion transformer that alternates spatial and temporal attention",
           module="longtake.backbones.latte", page="docs/systems/latte.md",
           claim="latte", missing="nothing measured on a GPU"),
    System("lumina-t2x", "Lumina-T2X (Flag-DiT)", "backbones", "2405.05945",
           "one flow-matching transformer for images, video, views and audio of any size"),
    System("qihoo-t2x", "Qihoo-T2X (PT-DiT)", "backbones", "2409.04005",
           "global attention through one proxy token per window"),
    System("waver", "Waver", "backbones", "2508.15761",
           "one model for text and image to video, with a cascade refiner and a data engine",
           module="longtake.backbones.waver",
           missing="claim, page, prompt tags, refiner, curation"),
    System("wan", "Wan 2.1 and VACE", "backbones", "2503.20314 2503.07598",
           "causal video autoencoder, cross-attention DiT with shared time modulation, editing through VACE",
           module="longtake.tokenizers.causal_vae",
           missing="claim, page, the DiT, VACE, curation; the autoencoder is there"),
    System("step-video-t2v", "Step-Video-T2V", "backbones", "2502.10248",
           "30B text to video: 16x16x8 autoencoder, two text encoders, full 3-D attention, Video-DPO"),
    System("stiv", "STIV", "backbones", "2412.07730",
           "text and image to video by frame replacement and joint image-text guidance"),
    System("av-dit", "AV-DiT", "backbones", "2406.07686",
           "one frozen image diffusion transformer, light adapters, joint video and audio"),
    System("video-ldm", "Video LDM", "backbones", "2304.08818",
           "turn a frozen image diffusion model into a video model by interleaving trained temporal layers"),
    System("stable-video-diffusion", "Stable Video Diffusion", "backbones", "2311.15127",
           "three-stage training, data curation, EDM finetuning with shifted noise, image to video"),
    System("taylorseer", "TaylorSeer", "methods/caches", "2503.06923",
           "forecast each module's output from its past values with a Taylor polynomial instead of reusing it",
           module="longtake.methods.caches.taylorseer", claim="taylorseer", page="docs/systems/taylorseer.md",
           missing="time and memory on a GPU"),
    System("delta-dit", "Δ-DiT", "methods/caches", "2406.01125",
           "reuse the residual of the back blocks early in sampling and of the front blocks late",
           module="longtake.methods.caches.delta_dit", claim="delta_dit", page="docs/systems/delta-dit.md",
           missing="time and memory on a GPU, the claim on a network of more than 8 blocks"),
    System("sparse-videogen2", "Sparse VideoGen2", "methods/sparse", "2505.18875",
           "attention blocks are clusters of tokens; each query cluster takes the key clusters that matter to it"),
    System("adaspa", "AdaSpa", "methods/sparse", "2502.21079",
           "block masks found by an exact search in two steps of the run, with a density for each head"),
    System("draftattention", "DraftAttention", "methods/sparse", "2505.14708",
           "a low-resolution attention map decides in every call which pairs of patches are computed"),
    System("re-ttention", "Re-ttention", "methods/sparse", "2505.22918",
           "very sparse window attention, its softmax mass corrected by a cached ratio"),
    System("sparse-vdit", "Sparse-vDiT", "methods/sparse", "2506.03065",
           "every head gets one of five fixed attention modes, chosen once offline"),
    System("efficient-vdit", "Efficient-vDiT", "methods/sparse", "2502.06155",
           "attention tiles chosen per layer, and multi-step consistency distillation"),
    System("flexdit", "FlexDiT", "methods/dynamic", "2412.06028",
           "a token density that changes along depth and along denoising time",
           module="longtake.methods.dynamic.flexdit", claim="flexdit", page="docs/systems/flexdit.md",
           missing="times on a GPU"),
    System("dydit-plus-plus", "DyDiT and DyDiT++", "methods/dynamic", "2504.06803 2410.03456",
           "a DiT that chooses its width per timestep and skips easy tokens in its MLPs",
           module="longtake.methods.dynamic.dydit", claim="dydit_plus_plus", page="docs/systems/dydit-plus-plus.md",
           missing="the version for FLUX, times on a GPU"),
    System("dit-token-routing", "DiT (dynamic token routing)", "recognition", "2308.03409",
           "a vision backbone in which every token picks its own path through scales and depth",
           module="longtake.recognition.token_routing", claim="dit_token_routing",
           page="docs/systems/dit-token-routing.md",
           missing="gathering saves no time on a CPU, no recipe of routed video networks, nothing measured on a GPU"),
    System("lrq-dit", "LRQ-DiT", "methods/quantization", "2508.03485",
           "3 to 4 bit post-training quantisation with sign-split log weights and two kinds of activation rotation"),
    System("vq4dit", "VQ4DiT", "methods/quantization", "2408.17131",
           "2 and 3 bit weights by vector quantisation, with the choice of codeword learned together with the codebook"),
    System("w2sd", "W2SD", "methods/sampling", "2502.00473",
           "pushes the latent along strong minus weak model by denoising with one and inverting with the other",
           module="longtake.methods.sampling.w2sd", claim="w2sd", page="docs/systems/w2sd.md",
           missing="experts, time and memory on a GPU"),
    System("video-interface-networks", "Video Interface Networks", "longvideo", "2503.17539",
           "a fixed number of global tokens lets a DiT denoise the chunks of a long video in parallel"),
    System("ditctrl", "DiTCtrl", "longvideo", "2412.18597",
           "training-free multi-prompt long video and prompt editing by attention control"),
    System("dualparal", "DualParal", "longvideo", "2505.21070",
           "endless video: blocks of frames at falling noise levels pass through devices that hold slices of layers"),
    System("mask2dit", "Mask²DiT", "longvideo", "2503.19881",
           "several scenes in one pass, an attention mask tying each text to its own scene"),
    System("vidrd", "VidRD (Reuse and Diffuse)", "longvideo", "2309.03549",
           "longer video without a second model, by reusing the last clip's noise and latents in reverse"),
    System("art-v", "ART-V", "longvideo", "2311.18834",
           "one frame at a time, with a masked diffusion model that may copy from reference frames"),
    System("tats", "TATS", "autoregressive", "2204.03638",
           "long video from short clips: time-agnostic 3-D VQGAN, hierarchical transformer",
           module="longtake.autoregressive.tats", claim="tats_padding", page="docs/systems/tats.md",
           missing="a hierarchy that beats its base, a shipped model that hears, times on a GPU"),
    System("jpeg-lm", "JPEG-LM / AVC-LM", "autoregressive", "2408.08459",
           "a plain Llama that writes JPEG (image) or H.264 (video) file bytes"),
    System("divot", "Divot", "tokenizers", "2412.04432",
           "video tokenizer trained by denoising from its tokens; a language model predicts them"),
    System("dicode", "DiCoDe", "tokenizers", "2412.04446",
           "16 deep tokens per boundary frame, written by a language model, decoded by a diffusion model"),
    System("arlon", "ARLON", "autoregressive", "2410.20502",
           "an autoregressive model writes coarse VQ codes of the whole video; a DiT renders it under their guidance"),
    System("dreamvideo", "DreamVideo", "conditioning", "2312.03018",
           "image-to-video with an image retention branch on a frozen video model and two-condition guidance"),
    System("i2v-adapter", "I2V-Adapter", "conditioning", "2312.16693",
           "image to video: every frame also attends to the clean first frame, through two small matrices per layer"),
    System("x-unimotion", "X-UniMotion", "conditioning", "2508.09383",
           "animates a picture of a person from a driving video through four motion tokens free of identity"),
    System("viton-dit", "VITON-DiT", "conditioning", "2405.18326",
           "video try-on: garment features fused into attention, and an identity ControlNet"),
    System("det", "DeT (Decouple and Track)", "conditioning", "2503.17350",
           "motion transfer by tuning a temporal convolution beside each attention, with a loss along point tracks"),
    System("gencompositor", "GenCompositor", "conditioning", "2509.02460",
           "puts a moving foreground video into a background video along a path that the user draws"),
    System("dit-mem", "DiT-Mem", "conditioning", "2511.19229",
           "memory tokens made from retrieved clips, appended to every self-attention of a frozen DiT"),
    System("gs-dit", "GS-DiT", "conditioning", "2501.02690",
           "camera and object control by rendering a pseudo 4-D Gaussian field built from point tracks"),
    System("lavie", "LaVie", "enhancement", "2309.15103",
           "cascade of text to video, x4 temporal interpolation and x4 super-resolution"),
    System("turbo2k", "Turbo2K", "enhancement", "2504.14470",
           "2K video from a very compressed latent, distilled from a larger, unlike teacher"),
    System("infvsr", "InfVSR", "enhancement", "2510.00948",
           "streaming video super-resolution, one diffusion step per chunk, rolling KV cache and a visual reference"),
    System("gnvc-vd", "GNVC-VD", "enhancement", "2512.05016",
           "neural video codec whose decoder repairs the decoded latents with a few flow-matching steps of a video DiT"),
    System("wait", "WAIT", "enhancement", "2310.04901",
           "animation to illustration with feature warping in place of optical flow, trained without pairs"),
    System("dist", "DiST", "recognition", "2309.07911",
           "frozen image encoder + light temporal encoder + integration branch for video recognition"),
    System("zeroi2v", "ZeroI2V", "recognition", "2310.01324",
           "image transformer made a video model at zero inference cost (STDHA + mergeable linear adapters)"),
    System("i2v-transfer-survey", "Image-to-video transfer survey", "recognition", "2510.10671",
           "what lets every strategy of image-to-video transfer have a working representative"),
    System("t2v-survey", "Text-to-video survey", "evaluation", "2510.04999",
           "what the evaluation suite, model cards and dataset cards must cover"),
)

BESIDE: tuple[System, ...] = (
    System("first-block", "First-block cache", "methods/caches", "",
           "runs the first block, and the others only where it says that much has changed",
           module="longtake.methods.caches.first_block", beside=True),
    System("local-window", "Window attention", "methods/sparse", "",
           "lets a token see its neighbourhood; a masked reference, which saves no time",
           module="longtake.methods.sparse.local_window", beside=True),
    System("minmax8", "Weights in 8 bits", "methods/quantization", "",
           "weights of linear layers in 8 bits or fewer, from the extremes of each output; saves memory, not time",
           module="longtake.methods.quantization.minmax", beside=True),
    System("cfg-interval", "Guidance interval", "methods/guidance", "2404.07724",
           "guides between two noise levels, and makes one prediction outside of them",
           module="longtake.methods.guidance.interval", beside=True),
    System("apg", "Adaptive projected guidance", "methods/guidance", "2410.02416",
           "damps the part of guidance that over-saturates, and limits the rest",
           module="longtake.methods.guidance.apg", beside=True),
    System("attention-maps", "Attention maps", "methods/observers", "",
           "keeps attention maps of chosen layers and steps, for looking at",
           module="longtake.methods.observers.attention_maps", beside=True),
)
"""Methods that can be called and are none of the published systems."""
# fmt: on


def systems(name: str | None = None, *, beside: bool = False) -> tuple[System, ...]:
    """Return the published systems, or the one called `name`.

    Args:
        name: of a row; None for all.
        beside: the small methods beside them too, behind them.

    Raises:
        UnknownName: no such row; the message names the nearest.
    """
    rows = SYSTEMS + BESIDE if beside else SYSTEMS
    chosen = tuple(row for row in rows if name in (None, row.name))
    if not chosen:
        raise UnknownName(f"no system is called '{name}'.{nearest(str(name), [row.name for row in rows])}")
    return chosen
