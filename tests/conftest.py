"""What every test stands on: no network, a time limit, a fixed start of torch's generator, the gpu marker."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported; subprocesses inherit it
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

settings.register_profile("longtake", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("longtake")

sys.path.insert(0, str(Path(__file__).parent / "recorded"))  # what tests of several folders import

TIMEOUT = 180  # seconds; `@pytest.mark.timeout(seconds)` for a test that needs another limit


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Raise in the test itself when its time is up, so that its cleanup runs and the next test starts."""
    marker = item.get_closest_marker("timeout")
    seconds = marker.args[0] if marker else TIMEOUT
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return (yield)

    def expire(signum, frame):
        pytest.fail(f"took more than {seconds} s", pytrace=True)

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def _seeded():
    """Weights drawn by torch's default generator are the same whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """A connection to anything but this machine fails at once, naming the address."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests have no network: connection to {address[0]} refused")
        return connect(self, address)

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A saved pipeline with tiny random networks whose output depends on everything that goes in; do not write to it."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import T5Config, T5EncoderModel

    from longtake.backbones.waver import HybridStreamDiT
    from longtake.pipelines import VideoPipeline
    from longtake.tokenizers.causal_vae import CausalVAE
    from longtake.training.text_encoder import train_tokenizer

    torch.manual_seed(7)
    words = train_tokenizer(["a red ball rolls behind a blue cube"] * 50, vocab_size=600, max_length=24)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    tokenizer = CausalVAE(latent_channels=4, base_width=4)
    tokenizer.set_statistics([0.1, -0.1, 0.0, 0.2], [0.5, 0.6, 0.7, 0.8])
    transformer = HybridStreamDiT(
        latent_channels=4, text_width=16, width=32, heads=2, dual_blocks=1, single_blocks=1, absolute_size=(3, 4, 4)
    )
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if "modulation" in name or name.startswith("head."):  # zero at the start of a training
                weight.normal_(0, 0.1)
    transformer.set_black_latents(tokenizer)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    VideoPipeline(
        tokenizer=tokenizer.eval(),
        transformer=transformer.eval(),
        text_encoder=T5EncoderModel(T5Config(vocab_size=len(words), **sizes)).eval(),
        text_tokenizer=words,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0),
    ).save_pretrained(folder)
    return folder
