"""Tokens from our GPT, one by one, beside transformers' GPT-2 of the same size with its own `generate`.

Both keep keys and values, draw with temperature 1, top-k 64 and top-p 0.9 from 1,024 tokens, and go on from 64 tokens for
256 more. Random weights; float32. The ratio is of seconds, so tokens a second are its inverse.
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from longtake.backbones.gpt import GPT
from longtake.backbones.gpt_sampling import Choice, draw_noise, sample_tokens
from timing import arguments, compare, save

VOCABULARY, GIVEN, NEW = 1024, 64, 256
SIZES = {"4 x 128": (4, 128, 4), "8 x 256": (8, 256, 8), "12 x 512": (12, 512, 8)}
"""Depth, width and heads."""


def main() -> None:
    """Time, print, write."""
    chosen = arguments(__doc__)
    results = {}
    for size, (depth, width, heads) in SIZES.items():
        torch.manual_seed(0)
        ours = GPT(VOCABULARY, GIVEN + NEW, width, depth, heads).eval()
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=GIVEN + NEW,
            n_embd=width,
            n_layer=depth,
            n_head=heads,
            bos_token_id=None,
            eos_token_id=None,
        )
        theirs = GPT2LMHeadModel(config).eval()
        for batch in (1, 8):
            prompt = torch.randint(VOCABULARY, (batch, GIVEN))
            noise = draw_noise([torch.Generator().manual_seed(i) for i in range(batch)], NEW)
            choice = Choice(top_k=64, top_p=0.9)

            def run_ours(ours=ours, prompt=prompt, noise=noise, choice=choice) -> torch.Tensor:
                return sample_tokens(ours, prompt, noise, choice=choice, ids=range(VOCABULARY))

            def run_theirs(theirs=theirs, prompt=prompt) -> torch.Tensor:
                settings = {"do_sample": True, "top_k": 64, "top_p": 0.9, "max_new_tokens": NEW}
                mask = torch.ones_like(prompt)
                return theirs.generate(prompt, attention_mask=mask, pad_token_id=0, **settings)[:, GIVEN:]

            assert run_ours().shape == run_theirs().shape == (batch, NEW)
            name = f"{size}, batch {batch}"
            results[name] = compare({"transformers": run_theirs, "longtake": run_ours}, repeats=chosen.repeats)
            print(f"{name}\n{results[name]}", flush=True)
    setting = {"sizes": SIZES, "given": GIVEN, "new": NEW, "vocabulary": VOCABULARY, "threads": chosen.threads}
    print("written:", save("gpt_sampling", results, setting=setting, folder=chosen.out))


if __name__ == "__main__":
    main()
