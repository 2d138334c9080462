"""Images decoded ahead of their use, in threads and in bounded memory."""

import os
import warnings
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

import joblib

from skbridge._images.accept import NotAnImageError, describe_image
from skbridge._images.decode import to_rgb
from skbridge._images.limits import BUDGET, has_budget

# Images decoded in a turn of a caller that needs all cores, or a batch where that is
# more. Turns are long because torch's threads, when they are through with a batch, keep
# their cores busy for some milliseconds in the hope of more.
_TURN = 256
# More threads wait for the interpreter lock, and keep it from the thread that feeds the
# GPU: with 16 in place of 8, ViT-B/16 embeds 667 in place of 1,061 images per second.
_MAX_DECODERS = 8
# Characters of a foreign error's message, which may quote its input.
_LONGEST_REASON = 400


class Unreadable(NamedTuple):
    """Result for an image that could not be read.

    Attributes
    ----------
    description : str
        The image, as `describe_image` names it.
    error : Exception
        The cause.
    """

    description: str
    error: Exception

    @property
    def is_wrong_type(self):
        """Whether it is not an image at all, which is an error of the call."""
        return isinstance(self.error, NotAnImageError)

    @property
    def reason(self):
        """Why it could not be read: one sentence without a full stop."""
        told = getattr(self.error, "strerror", None) or str(self.error)
        return _one_line(told) or type(self.error).__name__

    def __str__(self):
        kind, message = type(self.error).__name__, _one_line(self.error)
        return f"({self.description}): {kind}: {message}"


def _one_line(message):
    line = " ".join(str(message).split())
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"


def read_in_batches(
    images,
    finish,
    *,
    batch_size,
    num_workers=None,
    overlap=True,
    least_side=None,
    budget=BUDGET,
    verbose=0,
):
    """Decode images ahead of their use, in memory that does not grow with their number.

    Parameters
    ----------
    images : sequence
        As `check_images` returns it. Items are fetched in the calling thread, since a
        sequence that makes them need not be thread-safe.
    finish : callable
        Applied to each decoded image in the thread that decoded it.
    batch_size : int
        Images of a batch.
    num_workers : int or None, default=None
        Threads that decode; 0 is the calling thread, None one per CPU core, at most 8.
        They are started once and kept for the next call.
    overlap : bool, default=True
        Decode the next batch while the caller works on this one. False leaves the
        cores to the caller in the meantime: 256 images, or a batch where that is more,
        are decoded before it gets the first of them.
    least_side, budget
        As for `to_rgb`.
    verbose : int, default=0
        Above 0, a progress bar is written to stderr.

    Yields
    ------
    start : int
        Position of the first image of the batch.
    results : list
        For each image of the batch, in order, what `finish` returned, or an
        `Unreadable`. At no time are there more than `batch_size` images that were
        fetched and are not yet decoded.

    Warns
    -----
    UserWarning
        In the end, if the values of images do not use the range of their type.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge._images.batches import read_in_batches
    >>> images = [np.zeros((2, 3)), np.zeros((4, 5)), None]
    >>> batches = read_in_batches(images, lambda image: image.size, batch_size=2)
    >>> next(batches)
    (0, [(3, 2), (5, 4)])
    >>> start, results = next(batches)
    >>> print(start, results[0])  # doctest: +ELLIPSIS
    2 (None): ValueError: the image is missing: ...
    """
    n_threads = num_workers
    if num_workers is None:
        n_threads = min(joblib.cpu_count(), _MAX_DECODERS)
    assumed = []  # Appended to in threads, and told of in this one.
    attempt = partial(
        _attempt,
        finish=finish,
        least_side=least_side,
        tell=assumed.append,
        budget=budget,
    )
    items = ([images[position]] for position in range(len(images)))
    if n_threads > 0:
        decode = partial(_map_ahead, attempt, n_threads=n_threads, ahead=batch_size)
    else:
        decode = partial(map, attempt)
    turn = max(batch_size, _TURN)
    results = decode(items) if overlap else _in_turns(decode, items, turn)
    with _progress_bar(len(images)) if verbose else nullcontext() as bar:
        for start in range(0, len(images), batch_size):
            yield start, list(islice(results, batch_size))
            if bar is not None:
                bar.update(min(batch_size, len(images) - start))
    for what, n_images in Counter(assumed).items():
        warnings.warn(
            f"{n_images} of {len(images)} images do not use the range of their type: "
            f"{what}. Scale them to 0 to 255 in uint8 if this is wrong.",
            UserWarning,
            stacklevel=3,
        )


def _progress_bar(n_images):
    # tqdm.auto warns in notebooks without ipywidgets, also about bars not shown.
    from tqdm.auto import tqdm

    return tqdm(total=n_images, unit="image")


def _in_turns(decode, items, turn):
    """Yield what `decode` makes of the items, `turn` at a time and none ahead."""
    while results := list(decode(islice(items, turn))):
        yield from results


def _map_ahead(function, items, *, n_threads, ahead):
    """Yield `function` of each item, in order, while up to `ahead` more are made."""
    submit = _decoders(n_threads).submit
    pending = deque(submit(function, item) for item in islice(items, ahead))
    try:
        while pending:
            result = pending.popleft().result()
            pending.extend(submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()


@lru_cache(maxsize=1)
def _decoders(n_threads):
    """Return the threads that decode, which every call shares."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="skbridge-decoder")


if hasattr(os, "register_at_fork"):
    # A forked process has no threads but its own.
    os.register_at_fork(after_in_child=_decoders.cache_clear)


def _attempt(item, finish, least_side, tell, budget):
    """Return `finish` of the decoded image, or what kept it from being read."""
    # Taken out of its list, the image lives no longer than this call.
    image = item.pop()
    try:
        return finish(to_rgb(image, least_side, tell, budget))
    except MemoryError as error:
        if not has_budget(budget):
            raise  # Of the call: any image may be the one that meets the end of memory.
        return Unreadable(describe_image(image), error)
    except Exception as error:  # Broken files make decoders raise almost anything.
        return Unreadable(describe_image(image), error)
