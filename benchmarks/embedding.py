"""Embedding JPEG files: CLIPEmbedder against its own parts and against peers.

    python benchmarks/embedding.py
    python benchmarks/embedding.py --images FOLDER --models ViT-B-32

For each model and each kind of image, in one process on the same files:

- model: the image tower on ready tensors, nothing else, at the batch size of all
  and at a small one, the faster of which is what CLIPEmbedder is measured against;
- decoders: reading, decoding and resizing, with the same threads and no model;
- CLIPEmbedder, from paths to embeddings;
- peers with the same weights, precision, batch size and files: the encoder of
  embetter, sentence-transformers, and a torch DataLoader with open_clip's transform
  and `encode_image`, which is how clip_benchmark is described to work (written anew
  here; the package itself is not needed). `pip install ".[peers]"` brings the first
  two. What cannot run says why.

Every contestant runs once per round, one after another; rates are medians over the
rounds with the smallest and largest. The bound is the slower of the model and the
decoders. On a CPU they share the cores, which bounds the rate further: where both
use all of them, to 1 / (1 / model + 1 / decoders).

Models: "skbridge-tiny" is the bundled one (a ResNet, which Hugging Face's CLIP cannot
hold); "tiny-ViT" (two layers of width 128) and the names of open_clip's architectures
have random weights and a text tower of one layer, as speed does not depend on either.
"""

import argparse
import contextlib
import json
import logging
import os
import tempfile
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib
import numpy as np
import open_clip
import torch
from _measure import interleaved, machine, markdown_table, versions
from PIL import Image
from sklearn.base import clone
from torch.utils.data import DataLoader, Dataset

from skbridge import CLIPEmbedder
from skbridge._embedder import _pixels
from skbridge.datasets import load_emoji

# On a CPU a tower may be fastest on few images at a time; the faster rate counts.
SMALL_BATCH = 16
ALONE, DECODERS, OURS = "model alone", "decoders alone", "CLIPEmbedder"
TINY_VIT = {"image_size": 224, "layers": 2, "width": 128, "patch_size": 32}
SMALL_TEXT = {"context_length": 77, "vocab_size": 49408, "layers": 1}
SMALL_TEXT |= {"width": 64, "heads": 1}


# Images and models


def write_photos(folder, size, n_images, seed=0):
    """Photo-like JPEG files: a few emoji over a gradient, with sensor noise."""
    rng = np.random.default_rng(seed)
    emoji = load_emoji().images
    width, height = size
    paths = []
    for number in range(n_images):
        corners = rng.integers(0, 256, size=(2, 2, 3), dtype=np.uint8)
        photo = Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)
        for _ in range(3):
            side = int(rng.integers(height // 4, height))
            picture = Image.fromarray(emoji[rng.integers(len(emoji))])
            corner = rng.integers(0, width - side // 2), rng.integers(0, height)
            photo.paste(picture.resize((side, side)), tuple(int(at) for at in corner))
        noise = rng.normal(scale=6, size=(height, width, 1))
        pixels = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{width}x{height}-{number:04}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def find_photos(folder, n_images):
    """Take JPEG files evenly from all that a folder holds."""
    suffixes = {".jpg", ".jpeg"}
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in suffixes)
    if not paths:
        raise SystemExit(f"--images {folder} holds no .jpg or .jpeg files.")
    step = max(len(paths) // n_images, 1)
    return [str(path) for path in paths[::step][:n_images]]


def model_folder(name, folder):
    """Write a randomly initialised CLIP to disk; a bundled one needs none."""
    if name == "skbridge-tiny":
        return name
    config = open_clip.get_model_config("ViT-B-32" if name == "tiny-ViT" else name)
    config["text_cfg"] = SMALL_TEXT
    if name == "tiny-ViT":
        config |= {"embed_dim": 128, "vision_cfg": TINY_VIT}
    torch.manual_seed(0)
    weights = open_clip.model.CLIP(**config).state_dict()
    target = folder / name
    target.mkdir()
    from safetensors.torch import save_file

    save_file(weights, target / "open_clip_model.safetensors")
    (target / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return str(target)


def write_hugging_face(model, folder):
    """Write the image tower of an open_clip ViT as a Hugging Face CLIP."""
    tower = model.visual
    if not isinstance(tower, open_clip.transformer.VisionTransformer):
        raise ValueError("Hugging Face's CLIP has no such tower, only plain ViTs")
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
    )

    embed_dim, width = tower.output_dim, tower.conv1.out_channels
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 1, "hidden_act": "gelu"}
    theirs = CLIPModel(
        CLIPConfig(
            text_config=text,
            vision_config={
                "hidden_size": width,
                "intermediate_size": 4 * width,
                "num_hidden_layers": tower.transformer.layers,
                "num_attention_heads": width // 64,
                "image_size": tower.image_size[0],
                "patch_size": tower.patch_size[0],
                "hidden_act": "gelu",
            },
            projection_dim=embed_dim,
        )
    )
    weights = {}
    for name, value in tower.state_dict().items():
        if name == "proj":
            weights["visual_projection.weight"] = value.T
        elif ".in_proj_" in name:
            stem, kind = name.split("in_proj_")
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                weights[f"{stem}{part}_proj.{kind}"] = piece
        else:
            weights[name] = value
    renamed = {
        "transformer.resblocks": "encoder.layers",
        ".attn.": ".self_attn.",
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "c_fc": "fc1",
        "c_proj": "fc2",
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1": "embeddings.patch_embedding",
    }
    state = {}
    for name, value in weights.items():
        if name != "visual_projection.weight":
            for ours, other in renamed.items():
                name = name.replace(ours, other)
            name = f"vision_model.{name}"
        state[name] = value.contiguous()
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    left = [name for name in missing if name.startswith("vis") and "_ids" not in name]
    assert not left, left
    assert not unexpected, unexpected
    theirs.save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), CLIPTokenizer()).save_pretrained(folder)


# Contestants: functions of paths that return embeddings


class Files(Dataset):
    def __init__(self, paths, preprocess):
        self.paths, self.preprocess = paths, preprocess

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            return self.preprocess(image.convert("RGB"))


def ready_tensors(loaded, paths, batch_size, precision):
    """Time the image tower alone, on batches in the layout that suits it."""
    files = Files(paths, loaded.preprocess)
    tensors = torch.stack([files[row] for row in range(len(files))])
    batches = [
        batch.to(loaded.device, memory_format=torch.channels_last)
        for batch in tensors.split(batch_size)
    ]

    def run():
        with torch.no_grad(), autocast(loaded, precision):
            found = [loaded.model.encode_image(batch).float() for batch in batches]
        return torch.cat(found).cpu().numpy()

    return run


def autocast(loaded, precision):
    kind = torch.device(loaded.device).type
    half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = half[precision]
    return torch.autocast(kind, dtype=dtype, enabled=dtype is not None)


def data_loader(loaded, paths, options):
    """The loop of clip_benchmark, after its public description."""
    loader = DataLoader(
        Files(paths, loaded.preprocess),
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        shuffle=False,
    )

    def run():
        with torch.no_grad(), autocast(loaded, options.precision):
            found = [
                loaded.model.encode_image(batch.to(loaded.device)).float().cpu()
                for batch in loader
            ]
        return torch.cat(found).numpy()

    return run


def sentence_transformer(loaded, paths, options, folder):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(folder, device=loaded.device)

    def run():
        images = [Image.open(path) for path in paths]
        with autocast(loaded, options.precision):
            return theirs.encode(images, batch_size=options.batch_size)

    return run


def embetter(loaded, paths, options, folder):
    from embetter.multi import ClipEncoder
    from embetter.vision import ImageLoader

    encoder = ClipEncoder(folder, device=torch.device(loaded.device))
    loader = ImageLoader()

    def run():
        with autocast(loaded, options.precision):
            return encoder.transform(loader.fit(paths).transform(paths))

    return run


SENTENCE_TRANSFORMERS = {
    "sentence-transformers": sentence_transformer,
    "embetter": embetter,
}


# Measuring


def contest(name, folder, paths, options, scratch):
    """List what runs: functions by label, and why others do not."""
    embedder = CLIPEmbedder(
        model=folder,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )
    fast = clone(embedder).set_params(fast_jpeg=True)
    loaded = embedder._load()
    contestants = {
        f"{ALONE}, {size} at a time": ready_tensors(
            loaded, paths, size, options.precision
        )
        for size in sorted({options.batch_size, SMALL_BATCH})
    }
    contestants |= {
        DECODERS: lambda: list(embedder._read(paths, partial(_pixels, loaded))),
        OURS: lambda: embedder.transform(paths),
        f"{OURS}, fast_jpeg": lambda: fast.transform(paths),
    }
    left_out = {}
    if "clip_benchmark" in options.peers:
        contestants["DataLoader loop (clip_benchmark)"] = data_loader(
            loaded, paths, options
        )
    target = scratch / "hugging-face" / name
    for peer, make in SENTENCE_TRANSFORMERS.items():
        if peer not in options.peers:
            continue
        try:
            if not target.exists():
                write_hugging_face(loaded.model, target)
            contestants[peer] = make(loaded, paths, options, str(target))
        except (ImportError, ValueError) as error:
            left_out[peer] = error
    return contestants, left_out


def compare(name, folder, paths, options, scratch):
    """Measure one model on one kind of image; return a Markdown section."""
    contestants, left_out = contest(name, folder, paths, options, scratch)
    # The first call of each, which is not timed, sets up what is set up once.
    results = {}
    calls = {
        label: lambda label=label, run=run: results.update({label: run()})
        for label, run in contestants.items()
    }
    times = interleaved(calls, options.rounds)
    rates = {label: len(paths) / taken.median for label, taken in times.items()}
    alone = [label for label in rates if label.startswith(ALONE)]
    model = max(rates[label] for label in alone)
    decoders, ours = rates[DECODERS], rates[OURS]
    bound = min(model, decoders)
    if torch.device(options.device).type == "cpu":
        busy = torch.get_num_threads() / model + max(options.num_workers, 1) / decoders
        bound = min(bound, joblib.cpu_count() / busy)
    rows = []
    for label, rate in rates.items():
        taken = times[label]
        spread = f"{len(paths) / taken.high:.1f} to {len(paths) / taken.low:.1f}"
        cosine = ""
        if label != DECODERS:
            cosine = f"{cosines(results[label], results[alone[0]]).min():.6f}"
        rows.append([label, f"{rate:.1f}", spread, f"{ours / rate:.2f}", cosine])
    with Image.open(paths[0]) as image:
        size = f"{image.width} x {image.height}"
    kilobytes = np.mean([os.path.getsize(path) for path in paths]) / 1000
    return "\n".join(
        [
            f"### {name}, {len(paths)} JPEG files of {size} ({kilobytes:.0f} kB)",
            "",
            markdown_table(
                ["", "images/s", "spread", "CLIPEmbedder over it", "cosine"], rows
            ),
            "",
            f"Bottleneck: the {'model' if model < decoders else 'decoders'}. "
            f"CLIPEmbedder reaches {ours / model:.3f} of the model, "
            f"{ours / decoders:.3f} of the decoders and {ours / bound:.3f} of the "
            f"bound, which is {bound:.1f} images/s ({bound / model:.3f} of the model, "
            f"{bound / decoders:.3f} of the decoders). Cosines are the smallest to the "
            "model on tensors of open_clip's own transform.",
            *(f"Not run: {peer} ({error})." for peer, error in left_out.items()),
            "",
        ]
    )


def cosines(A, B):
    A = A / np.linalg.norm(A, axis=1, keepdims=True)
    return np.einsum("ij,ij->i", A, B / np.linalg.norm(B, axis=1, keepdims=True))


def conditions(options):
    """Say on what the figures were found."""
    others = []
    for package in ("pillow", "transformers", "sentence-transformers", "embetter"):
        with contextlib.suppress(PackageNotFoundError):
            others.append(f"{package} {version(package)}")
    device = options.device
    if torch.device(device).type == "cuda":
        device = torch.cuda.get_device_name(device)
    return (
        f"{machine()}; {versions()}, {', '.join(others)}. Device {device}, "
        f"{options.precision}, {torch.get_num_threads()} threads of torch, "
        f"{options.num_workers} decoders, batches of {options.batch_size} (embetter: "
        f"of 32), medians of {options.rounds} rounds."
    )


def parse_size(text):
    width, _, height = text.partition("x")
    return int(width), int(height)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help="folder of JPEG files instead of generated")
    sizes = [(500, 375), (2000, 1500)]
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=sizes)
    parser.add_argument("--n-images", type=int, default=64)
    models = ["skbridge-tiny", "tiny-ViT", "ViT-B-32"]
    parser.add_argument("--models", nargs="+", default=models)
    peers = ["clip_benchmark", "sentence-transformers", "embetter"]
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=joblib.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", help="file for the Markdown section, too")
    options = parser.parse_args(argv)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    sections = ["## Embedding images", "", conditions(options), ""]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(transformers|sentence_|embetter)")
        scratch = Path(name)
        if options.images:
            kinds = [find_photos(options.images, options.n_images)]
        else:
            kinds = [
                write_photos(scratch, size, options.n_images) for size in options.sizes
            ]
        for model in options.models:
            folder = model_folder(model, scratch)
            for paths in kinds:
                sections.append(compare(model, folder, paths, options, scratch))

    report = "\n".join(sections)
    print(report)
    if options.output:
        Path(options.output).write_text(report, encoding="utf-8")


if __name__ == "__main__":
    # The peers must not ask the network for what lies beside the weights.
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
