"""What every test stands on: no network, a time limit, a fixed start of torch's generator, the gpu marker."""

import os
import signal
import socket
import threading

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported; subprocesses inherit it
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings

settings.register_profile("longtake", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("longtake")

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
