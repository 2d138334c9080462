"""Device and precision rules, tried without the devices themselves."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from skbridge._clip.device import (
    leaves_cores_free,
    resolve_device,
    resolve_precision,
    upload_pixels,
)


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes torch report the given accelerators."""

    def pretend(cuda_devices=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda_devices > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda_devices)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("device", "cuda_devices", "mps", "expected"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 0, True, "mps"),
        ("auto", 1, False, "cuda"),
        ("auto", 1, True, "cuda"),
        (None, 0, False, "cpu"),
        (None, 2, False, "cuda"),
        ("cpu", 0, False, "cpu"),
        ("cpu", 1, True, "cpu"),
        ("mps", 0, True, "mps"),
        ("cuda", 1, False, "cuda"),
        ("cuda", 1, True, "cuda"),
        ("cuda:0", 1, False, "cuda:0"),
        ("cuda:1", 2, False, "cuda:1"),
    ],
)
def test_available_device_is_used_without_a_warning(
    machine, device, cuda_devices, mps, expected
):
    machine(cuda_devices, mps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_device(device) == expected


@pytest.mark.parametrize(
    ("device", "cuda_devices", "mps", "reason"),
    [
        ("cuda", 0, False, "torch finds no CUDA device"),
        ("cuda", 0, True, "torch finds no CUDA device"),
        ("cuda:0", 0, False, "torch finds no CUDA device"),
        ("cuda:1", 1, False, r"torch finds 1 CUDA device\(s\)"),
        ("mps", 0, False, "torch finds no MPS"),
        ("mps", 1, False, "torch finds no MPS"),
    ],
)
def test_missing_device_falls_back_to_cpu_with_a_warning(
    machine, device, cuda_devices, mps, reason
):
    machine(cuda_devices, mps)
    message = f"Requested device '{device}' but {reason}. Using device 'cpu' instead."
    with pytest.warns(UserWarning, match=message):
        assert resolve_device(device) == "cpu"


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", 0]
)
def test_unknown_device_is_an_error_that_lists_the_known_ones(device):
    message = f"device must be 'auto', 'cpu', 'mps', .* Got {device!r} instead"
    with pytest.raises(ValueError, match=message):
        resolve_device(device)


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", "cpu", "fp32"),
        ("auto", "mps", "fp32"),
        ("auto", "cuda", "fp32"),
        ("fp32", "cpu", "fp32"),
        ("fp32", "cuda", "fp32"),
        ("bf16", "cuda", "bf16"),
        ("fp16", "cuda:1", "fp16"),
        ("fp16", "mps", "fp16"),
    ],
)
def test_precision_suits_the_device(precision, device, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_precision(precision, device) == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_needs_its_instructions_on_a_cpu(precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.warns(UserWarning, match=f"precision='{precision}' is not used on"):
        assert resolve_precision(precision, "cpu") == "fp32"


@pytest.mark.parametrize("precision", ["half", "float16", None, 16])
def test_unknown_precision_is_an_error_that_lists_the_known_ones(precision):
    message = f"precision must be 'auto', 'fp32', .* Got {precision!r} instead"
    with pytest.raises(ValueError, match=message):
        resolve_precision(precision, "cpu")


def test_cpu_is_resolved_without_importing_torch():
    code = (
        "import sys; "
        "from skbridge._clip.device import resolve_device, resolve_precision; "
        "resolve_device('cpu'), resolve_precision('auto', 'cpu'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Pixels on their way to a device


def test_pixels_arrive_in_order_and_unchanged():
    images = list(np.random.RandomState(0).randint(0, 256, (3, 4, 5, 3), np.uint8))
    batch = upload_pixels(images, "cpu")
    assert batch.dtype == torch.uint8
    np.testing.assert_array_equal(batch.numpy(), images)


@pytest.mark.parametrize(
    ("device", "pinned"), [("cpu", False), ("mps", False), ("cuda", True)]
)
def test_pixels_for_cuda_are_pinned_and_copied_without_waiting(
    monkeypatch, device, pinned
):
    made, sent = [], []

    class Batch:
        def numpy(self):
            return np.empty((2, 4, 5, 3), np.uint8)

        def to(self, *args, **options):
            sent.append((args, options))
            return self

    def empty(shape, **options):
        made.append((shape, options))
        return Batch()

    monkeypatch.setattr(torch, "empty", empty)
    upload_pixels([np.zeros((4, 5, 3), np.uint8)] * 2, device)
    assert made == [((2, 4, 5, 3), {"dtype": torch.uint8, "pin_memory": pinned})]
    assert sent == [((device,), {"non_blocking": pinned})]


@pytest.mark.parametrize(
    ("device", "threads", "free"),
    [("cuda", 4, True), ("mps", 4, True), ("cpu", 3, True), ("cpu", 4, False)],
)
def test_only_a_cpu_that_torch_uses_whole_leaves_no_core_free(
    monkeypatch, device, threads, free
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    assert leaves_cores_free(device) is free


FORKED = """
import os, sys, warnings
import numpy as np, torch
from skbridge import CLIPEmbedder
torch.set_num_threads(2)
images = [np.full((64, 64, 3), grey, np.uint8) for grey in range(40, 80)]
embedder = CLIPEmbedder("skbridge-tiny", device="cpu")
expected = embedder.transform(images)
child = os.fork()
if child == 0:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same = np.allclose(embedder.transform(images), expected, rtol=1e-4, atol=1e-5)
        embedder.transform(images)
    told = [str(warning.message) for warning in caught]
    os._exit(0 if same and len(told) == 1 and "'spawn' or joblib" in told[0] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_process_forked_after_use_computes_in_one_thread():
    # It waited for ever for the threads that it had in the parent.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    subprocess.run(command, check=True, timeout=60, env=environment)
