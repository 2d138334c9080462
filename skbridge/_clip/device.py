"""Where a model runs and in which precision."""

import os
import sys

import joblib
import numpy as np

from skbridge._messages import warn

_FALLBACK = "Requested device {device!r} but {reason}. Using device 'cpu' instead."

# Whether this process was forked from one that had imported torch.
_FORKED = False


def _after_fork():
    global _FORKED
    _FORKED = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def resolve_device(device="auto"):
    """Turn the `device` parameter into the name of a device that is there.

    Parameters
    ----------
    device : str or None, default="auto"
        "auto" (or None) takes "cuda" where a CUDA device is available, else "mps",
        else "cpu". Other values are "cpu", "mps", "cuda" and "cuda:N".

    Returns
    -------
    str
        A device that torch can use. An explicit device that is not available gives
        "cpu", with a UserWarning that says so.

    Raises
    ------
    ValueError
        If `device` is not one of the names above.

    Examples
    --------
    >>> from skbridge._clip.device import resolve_device
    >>> resolve_device("cpu")
    'cpu'
    """
    _replace_dead_threads()
    kind, _, index = str(device).partition(":")
    is_indexed_cuda = kind == "cuda" and index.isdecimal()
    if device not in (None, "auto", "cpu", "mps", "cuda") and not is_indexed_cuda:
        raise ValueError(
            "device must be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N' with N the number "
            f"of a GPU. Got {device!r} instead."
        )
    if device == "cpu":
        return "cpu"

    import torch

    if device in (None, "auto"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"

    if kind == "mps":
        reason = None if torch.backends.mps.is_available() else "torch finds no MPS"
    elif not torch.cuda.is_available():
        reason = "torch finds no CUDA device"
    elif index and int(index) >= torch.cuda.device_count():
        reason = f"torch finds {torch.cuda.device_count()} CUDA device(s)"
    else:
        reason = None
    if reason is None:
        return device
    warn(_FALLBACK.format(device=device, reason=reason), stacklevel=2)
    return "cpu"


def _replace_dead_threads():
    """Let torch compute in one thread in a forked process.

    The threads that it started in the parent are not there, and it would wait for them
    for ever.
    """
    global _FORKED
    if not _FORKED:
        return
    _FORKED = False
    import torch

    n_threads = torch.get_num_threads()
    if n_threads > 1:
        torch.set_num_threads(1)
        warn(
            "This process was forked from one that had loaded torch, whose "
            f"{n_threads} threads do not survive a fork. torch computes in one thread "
            "here. Start processes with 'spawn' or joblib's loky to use more.",
            stacklevel=3,
        )


def resolve_precision(precision="auto", device="cpu"):
    """Turn the `precision` parameter into one that suits the device.

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16", "fp16"}, default="auto"
        "auto" is "fp32" everywhere, so that an image has the same embedding on every
        machine; half precision is there for those who ask for it.
    device : str, default="cpu"
        A device as `resolve_device` returns it.

    Returns
    -------
    {"fp32", "bf16", "fp16"}
        "fp32" on a CPU that has no instructions for half precision, where it is slow:
        "fp16" on any, "bf16" on those without AVX512-BF16. A UserWarning tells those
        who asked for it.

    Raises
    ------
    ValueError
        If `precision` is not one of the four names.

    Examples
    --------
    >>> from skbridge._clip.device import resolve_precision
    >>> resolve_precision("auto", "cuda")
    'fp32'
    """
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ValueError(
            "precision must be 'auto', 'fp32', 'bf16' or 'fp16'. "
            f"Got {precision!r} instead."
        )
    if precision == "auto":
        return "fp32"
    if device != "cpu" or precision == "fp32":
        return precision
    if precision == "bf16" and _cpu_has_bf16():
        return precision
    warn(
        f"precision={precision!r} is not used on this CPU, which has no instructions "
        "for it. Using 'fp32' instead.",
        stacklevel=2,
    )
    return "fp32"


def _cpu_has_bf16():
    import torch

    # Elsewhere, as with AVX2 only, bfloat16 is slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported())


def leaves_cores_free(device):
    """Tell whether a model on a device leaves CPU cores to other threads.

    Parameters
    ----------
    device : str
        A device as `resolve_device` returns it.

    Returns
    -------
    bool
        False on a CPU all of whose cores torch uses: threads beside it take cores
        away from it, and the team of a parallel operation waits for its slowest
        thread.

    Examples
    --------
    >>> from skbridge._clip.device import leaves_cores_free
    >>> leaves_cores_free("cuda")
    True
    """
    import torch

    return device != "cpu" or torch.get_num_threads() < joblib.cpu_count()


def upload_pixels(pixels, device):
    """Copy images of one size to a device, in one piece.

    Parameters
    ----------
    pixels : sequence of ndarray of shape (height, width, 3), uint8
    device : str
        A device as `resolve_device` returns it.

    Returns
    -------
    torch.Tensor of shape (n, height, width, 3), uint8, on the device

    Notes
    -----
    For CUDA the batch is made in pinned memory, so that the copy runs beside what the
    GPU computes and the calling thread does not wait for it. torch keeps the memory
    for later batches, and gives it out again only when its copy is over.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge._clip.device import upload_pixels
    >>> upload_pixels([np.zeros((4, 6, 3), dtype=np.uint8)] * 2, "cpu").shape
    torch.Size([2, 4, 6, 3])
    """
    import torch

    is_cuda = torch.device(device).type == "cuda"
    shape = (len(pixels), *pixels[0].shape)
    batch = torch.empty(shape, dtype=torch.uint8, pin_memory=is_cuda)
    np.stack(pixels, out=batch.numpy())
    return batch.to(device, non_blocking=is_cuda)
