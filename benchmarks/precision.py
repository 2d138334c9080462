"""What makes an image tower faster on a CPU, and what it does to the embeddings.

Each model runs in open_clip's eager float32, all images at once, and in other ways on
the same pixels: as `CLIPEmbedder` does it in float32 and in bfloat16, in other batches,
with parts in float32, in another memory format, through autocast, as a frozen graph.
Last, JPEG files are embedded whole, with torch's and the decoders' threads divided
otherwise. All ways of a model take turns in one process; a ratio is the median over the
rounds of the time in open_clip's way over the time in this one, and a cosine the
smallest to its embeddings. On a busy machine ``--cpu-time`` measures one thread by its
CPU time. The weights are random but for the bundled model, whose
accuracy on the bundled emoji is given too::

    python benchmarks/precision.py
    python benchmarks/precision.py --models RN50 --rounds 9 --n-images 64
"""

import argparse
import copy
import logging
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from _measure import machine, markdown_table, versions
from embedding import cosines, model_folder, write_photos

from skbridge import CLIPEmbedder, TextHead
from skbridge._clip.load import load_clip
from skbridge._rows import unit
from skbridge.datasets import load_emoji

EAGER = "open_clip, float32, all images at once"
# Layers that are kept in float32, by the names of their classes.
KEPT = {
    "layer norms": ("LayerNorm", "LayerNormFp32"),
    "the attention that pools": ("AttentionPool2d",),
}


def take_turns(calls, rounds, clock):
    """Seconds of each call in each round, after a round that does not count."""
    seconds = {name: [] for name in calls}
    for turn in range(-1, rounds):
        for name in reversed(calls) if turn % 2 else calls:
            started = clock()
            calls[name]()
            if turn >= 0:
                seconds[name].append(clock() - started)
    return {name: np.array(taken) for name, taken in seconds.items()}


def in_float32(module):
    """Let a module of a bfloat16 tower compute in float32."""
    module.float()
    forward = module.forward
    module.forward = lambda x, *rest: forward(x.float(), *rest).bfloat16()


def bfloat16_tower(loaded, kept=()):
    tower = copy.deepcopy(loaded.model.visual).bfloat16()
    for module in tower.modules():
        if type(module).__name__ in kept:
            in_float32(module)
    return tower


def frozen(tower, batch):
    """Graph of a tower with its weights packed for the processor."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out.
        traced = torch.jit.trace(tower, batch, check_trace=False)
        graph = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        for _ in range(2):  # The first calls specialise it.
            graph(batch)
    return graph


def runner(tower, batches):
    @torch.no_grad()
    def run():
        return torch.cat([tower(batch).float() for batch in batches]).numpy()

    return run


def ways(loaded, pixels):
    """The ways to run a tower, by label, and why others are left out."""
    tower, batch = loaded.model.visual, loaded.scale(pixels)
    half = bfloat16_tower(loaded)
    planar, eight = batch.contiguous(), 8

    @torch.autocast("cpu", dtype=torch.bfloat16)
    def autocast(batch):
        return tower(batch)

    found = {
        EAGER: runner(tower, [planar]),
        "CLIPEmbedder, float32": lambda: loaded.embed(pixels).numpy(),
        "CLIPEmbedder, bfloat16": lambda: loaded.embed(pixels, "bf16").numpy(),
        "bfloat16, all images at once": runner(half, [batch.bfloat16()]),
        "bfloat16, image by image": runner(half, batch.bfloat16().split(1)),
        "bfloat16, not channels-last": runner(half, planar.bfloat16().split(eight)),
        "autocast to bfloat16": runner(autocast, batch.split(eight)),
    }
    for what, classes in KEPT.items():
        if any(type(module).__name__ in classes for module in tower.modules()):
            kept = bfloat16_tower(loaded, classes)
            found[f"bfloat16, {what} in float32"] = runner(
                kept, batch.bfloat16().split(eight)
            )
    left_out = {}
    for label, module, data in (
        ("frozen graph, float32", tower, batch),
        ("frozen graph, bfloat16", half, batch.bfloat16()),
    ):
        try:
            graph = frozen(module, data[:eight])
            found[label] = runner(graph, data.split(eight))
            found[label]()
        except Exception as error:  # torch.jit fails in many ways.
            left_out[label] = str(error).strip().splitlines()[-1][:80]
            found.pop(label, None)
    return found, left_out


@contextmanager
def torch_threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def files_to_embeddings(folder, paths):
    """Ways to embed files, by label."""
    found = {}
    cores = torch.get_num_threads()
    for precision in ("fp32", "bf16"):
        for n_torch, n_decoders in ((cores, 0), (cores, cores), (1, 1)):
            embedder = CLIPEmbedder(
                folder, device="cpu", precision=precision, num_workers=n_decoders
            )

            def run(embedder=embedder, n_torch=n_torch):
                with torch_threads(n_torch):
                    return embedder.transform(paths)

            label = f"{precision}, {n_torch} threads of torch, {n_decoders} decoders"
            found[label] = run
    return found


def table(calls, options):
    """Rates, ratios to the first way and cosines with it."""
    results = {}
    timed = {
        label: lambda label=label, run=run: results.update({label: run()})
        for label, run in calls.items()
    }
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds = take_turns(timed, options.rounds, clock)
    first = next(iter(calls))
    rows = []
    for label, taken in seconds.items():
        ratios = seconds[first] / taken
        rows.append(
            [
                label,
                f"{options.n_images / np.median(taken):.1f}",
                f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})",
                f"{cosines(results[label], results[first]).min():.6f}",
            ]
        )
    return markdown_table(["", "images/s", "ratio", "cosine"], rows)


def accuracy_on_emoji():
    """Zero-shot accuracy of the bundled model in both precisions."""
    emoji = load_emoji()
    loaded = load_clip("skbridge-tiny")
    texts = TextHead.from_clip(emoji.target_names, "skbridge-tiny").text_features
    pixels = torch.from_numpy(emoji.images)
    predicted = [
        (unit(loaded.embed(pixels, precision).numpy()) @ texts.T).argmax(axis=1)
        for precision in ("fp32", "bf16")
    ]
    full, half = ((labels == emoji.target).mean() for labels in predicted)
    same = (predicted[0] == predicted[1]).mean()
    return (
        f"Zero-shot on {len(pixels):,} bundled emoji: {100 * full:.2f} % right in "
        f"float32, {100 * half:.2f} % in bfloat16, {100 * same:.2f} % of the labels "
        "the same."
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = ["ViT-B-32", "ViT-B-16", "RN50", "skbridge-tiny"]
    parser.add_argument("--models", nargs="*", default=models)
    parser.add_argument("--n-images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--files", default="ViT-B-32", help="model that embeds files; '' for none"
    )
    parser.add_argument("--output", help="file for the Markdown section, too")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and its CPU time: what a busy machine can measure",
    )
    options = parser.parse_args(argv)
    if options.cpu_time:
        torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    has = "has" if torch.cpu._is_avx512_bf16_supported() else "lacks"
    threads = f"{torch.get_num_threads()} threads of torch"
    if options.cpu_time:
        threads += ", seconds of CPU time"
    sections = []

    def write(*lines):
        sections.extend(lines)
        print(*lines, sep="\n", flush=True)

    write(f"{machine()}; {versions()}; {threads}. The processor {has} AVX512-BF16.", "")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folders = {}
        for model in {*options.models, options.files} - {""}:
            folders[model] = model_folder(model, scratch)
        for model in options.models:
            loaded = load_clip(folders[model])
            shape = (options.n_images, loaded.image_side, loaded.image_side, 3)
            pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
            calls, left_out = ways(loaded, pixels)
            write(
                f"### {model}",
                "",
                table(calls, options),
                "",
                *(f"Not run: {label} ({why})." for label, why in left_out.items()),
            )
        if options.files:
            photos = write_photos(scratch, (500, 375), options.n_images)
            calls = files_to_embeddings(folders[options.files], photos)
            write(
                f"### {options.files}, {options.n_images} JPEG files of 500 x 375",
                "",
                table(calls, options),
                "",
                accuracy_on_emoji(),
            )
    if options.output:
        Path(options.output).write_text("\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
