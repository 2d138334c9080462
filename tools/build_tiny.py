"""Trains skbridge-tiny, the bundled CLIP, from pinned npm packages.

Run ``python tools/build_tiny.py --work FOLDER`` to fetch the icons,
draw them once (kept in FOLDER), train, and write the model folder. It needs the
extra ``build`` and the ``npm`` client; the library itself never imports this
module. With one seed the run is the same up to floating point and the order of
the hardware's sums; a GPU is used when there is one.

No emoji of a class of :func:`skbridge.datasets.load_emoji` is trained on, in any
artist's style; user-interface icons may show the same concept. A second group of
emoji classes, `VALIDATION`, is left out by the same rule: every choice between
candidates was made on it.
"""

# ruff: noqa: SIM905 (names read, and are edited, better as words than as a list)
import argparse
import gzip
import json
import math
import re
import time
from collections import Counter
from pathlib import Path

import build_emoji
import numpy as np
from build_emoji import fetch_package, icon_svg, render

OUT = Path(__file__).parents[1] / "skbridge" / "models" / "skbridge-tiny"
PACKAGE = "@iconify/json@2.2.535"
LICENCES = {
    "Apache-2.0",
    "BSD-3-Clause",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "OFL-1.1",
}
SIZE = 64
VOCABULARY = 8000
PER_NAME = 40

EMOJI_SETS = [*build_emoji.STYLES, "streamline-emojis"]
# Sets that draw things rather than controls: every icon is used, whatever its name.
OBJECT_SETS = """
covid flat-color-icons game-icons healthicons maki meteocons osmic pinhead roentgen
streamline-ultimate-color temaki wi
""".split()
# Logos and file types name brands, not what the picture shows.
UNUSED_CATEGORIES = {"Emoji", "Logos", "Programming", "Flags / Maps"}

# Other names of the packaged classes, so that no set smuggles one in.
ALIASES = """
beetle bike bicyclist biking blackbird bulb burger capsule car cheeseburger clover
coffee drop eyeglasses fries gas-pump ladybird letter loaf mortarboard plane plug
pumpkin sakura sail-boat soccer spaceship spanner spectacles sprout sundae twister
tv xmas beer birthday bee
""".split()

# Chosen at random among the classes of all nine styles, none of them packaged.
VALIDATION = """
alien bank barber-pole baseball bathtub bikini bookmark bouquet
calendar chipmunk clipboard collision currency-exchange custard dango desert dvd
film-frames footprints game-die hatching-chick herb high-speed-train
hot-springs kimono label lipstick loudspeaker megaphone memo
military-medal monorail mouse mouth nose nut-and-bolt ox package
paperclip pot-of-food performing-arts ram rice-ball roller-coaster rugby-football
satellite-antenna school snowboarder speedboat spaghetti sunglasses sunrise
tangerine ticket tongue top-hat tram video-game violin wastebasket
""".split()

# Words at either end of an icon's name that say how, not what, it draws.
MANNERS = set(
    """
    alt black-and-white bold broken color colour duotone fill filled flat free light
    line linear o outline outlined regular remix round rounded s sharp solid stroke
    thin tone two twotone variant
    """.split()
)
# Names with these words show controls, marks put on other icons, or lettering.
UNUSED_WORDS = set(
    """
    add align arrow arrows backhand badge button check chevron circle circled clock
    cross down edit fist flag hand info input keycap left letter minus oclock off open
    person plus pointing remove right sign skin slash square symbol text thirty tone
    triangle up x
    """.split()
)

# Emoji of people come in many copies that differ by skin or sex alone.
COPIES = re.compile(
    r"-(dark|light|medium)(-skin-tone)?$|\b(couple|family|kiss|m[ae]n|wom[ae]n)-"
)

TEMPLATES = """
a photo of a {}.|a photo of a {}.|a photo of a {}.|{}|a {}|an icon of a {}.|
a drawing of a {}.|a picture of a {}.|an emoji of a {}.|a {} icon.|a cartoon {}.|
a clean origami {}.|a {} in a video game.|art of the {}.|itap of a {}.|
a rendering of a {}.|a black and white drawing of a {}.|a sketch of the {}.|
a photo of the {}.|an image of a {}, a type of thing.
""".replace("\n", "").split("|")

MODEL = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 24},
    "text_cfg": {
        "context_length": 32,
        "vocab_size": VOCABULARY,
        "width": 128,
        "heads": 4,
        "layers": 3,
    },
}
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def singular(word):
    """Strip a plural ending, roughly: the result is only compared with its like."""
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def shows(style, name, concepts):
    """Whether an emoji's name holds all words of any of the concepts.

    The rule is meant to exclude too much rather than too little: "dog" excludes
    "hot-dog" also, and in fxemoji, whose names have no hyphens, any substring does.
    """
    if style == "fxemoji":
        return any(concept.replace("-", "") in name for concept in concepts)
    words = {singular(word) for word in name.split("-")}
    return any(
        {singular(word) for word in concept.split("-")} <= words for concept in concepts
    )


def caption(name):
    """Keep the words of an icon's name that say what it shows; None if unusable."""
    words = [w for w in name.lower().split("-") if not re.fullmatch(r"\d+(px)?", w)]
    while words and words[-1] in MANNERS:
        words.pop()
    while words and words[0] in MANNERS:
        words.pop(0)
    if not 1 <= len(words) <= 4 or UNUSED_WORDS & set(words):
        return None
    text = " ".join(words)
    return text if len(text) > 2 and text.isascii() else None


def packaged_concepts():
    """Every name under which a packaged class may appear, words joined by hyphens."""
    labels = [label.replace(" ", "-") for label in build_emoji.LABELS.values()]
    return [*build_emoji.CLASSES, *labels, *ALIASES]


def choose_icons(read_set, collections, rng):
    """Choose the training and the validation icons.

    Parameters
    ----------
    read_set : callable
        The Iconify JSON of a set, by its prefix.
    collections : dict
        The package's ``collections.json``.
    rng : numpy.random.Generator

    Returns
    -------
    list of (str, str, str), list of (str, str, str)
        Set, icon and caption, for training and for validation.
    """
    packaged = packaged_concepts()
    hyphenated = {name.replace("-", ""): name for name in read_set("noto")["icons"]}
    train, validation, concepts = [], [], set()
    for style in EMOJI_SETS:
        for name in sorted(read_set(style)["icons"]):
            full = hyphenated.get(name) if style == "fxemoji" else name
            if full is None or COPIES.search(full):
                continue
            text = caption(full)
            if text is None:
                continue
            concepts |= {*text.split(), text}
            if shows(style, name, packaged):
                continue
            if not shows(style, name, VALIDATION):
                train.append((style, name, text))
            elif full in VALIDATION and style in build_emoji.STYLES:
                validation.append((style, name, text))
    for label in build_emoji.LABELS.values():
        concepts |= set(label.split())
    others = []
    for prefix, about in collections.items():
        whole = prefix in OBJECT_SETS
        if about["license"].get("spdx") not in LICENCES or prefix in EMOJI_SETS:
            continue
        if about.get("category") in UNUSED_CATEGORIES and not whole:
            continue
        seen = Counter()
        names = sorted(
            name
            for name, icon in read_set(prefix)["icons"].items()
            if not icon.get("hidden")
        )
        for name in rng.permutation(names):
            text = caption(name)
            words = set() if text is None else set(text.split())
            plain = 1 <= len(words) <= 2 and words <= concepts
            if not (plain or text in concepts or (whole and words)):
                continue
            seen[text] += 1
            if seen[text] <= 2:  # an outline and a filled one, say
                others.append((prefix, str(name), text))
    count = Counter()
    for k in rng.permutation(len(others)):
        count[others[k][2]] += 1
        if count[others[k][2]] <= PER_NAME:
            train.append(others[k])
    return train, validation


def draw(chosen, read_set):
    """Draw icons as RGBA, and say which use one colour only.

    Returns
    -------
    ndarray of shape (n, 64, 64, 4), uint8
    ndarray of shape (n,), bool
    """
    images = np.zeros((len(chosen), SIZE, SIZE, 4), np.uint8)
    monotone = np.zeros(len(chosen), bool)
    for k in sorted(range(len(chosen)), key=lambda k: chosen[k][0]):
        prefix, name, _ = chosen[k]
        images[k] = render(icon_svg(read_set(prefix), name), SIZE)
        opaque = images[k][images[k][..., 3] > 0][:, :3]
        monotone[k] = len(opaque) == 0 or np.ptp(opaque, axis=0).max() < 8
    return images, monotone


def prepare(work):
    """Fetch, choose and draw, or read what an earlier run left in `work`.

    Returns
    -------
    dict with keys "train" and "validation"
        For each, a tuple of RGBA images (n, 64, 64, 4), flags of one-colour
        drawings (n,) and a list of (set, icon, caption).
    dict of str to dict
        The package's ``collections.json``.
    """
    cache, index = work / "icons.npz", work / "icons.json"
    folder = work / "package"
    if not folder.exists():
        with fetch_package(PACKAGE, work) as archive:
            archive.extractall(work, filter="data")
    collections = json.loads((folder / "collections.json").read_bytes())
    if not index.exists():
        loaded = {}

        def read_set(prefix):
            if prefix not in loaded:  # one at a time: some hold 100 MB
                loaded.clear()
                loaded[prefix] = json.loads(
                    (folder / "json" / f"{prefix}.json").read_bytes()
                )
            return loaded[prefix]

        chosen = choose_icons(read_set, collections, np.random.default_rng(0))
        arrays = {}
        for part, icons in zip(("train", "validation"), chosen, strict=True):
            arrays[part], arrays[f"{part}_monotone"] = draw(icons, read_set)
        np.savez(cache, **arrays)
        index.write_text(json.dumps({"train": chosen[0], "validation": chosen[1]}))
    icons = json.loads(index.read_text())
    arrays = np.load(cache)
    return {
        part: (arrays[part], arrays[f"{part}_monotone"], icons[part]) for part in icons
    }, collections


def write_vocabulary(path):
    """Cut open_clip's merges to those that make `VOCABULARY` tokens."""
    import open_clip

    source = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(source.read_bytes()).decode().split("\n")
    # 256 bytes, the same at the end of a word, and two marks precede the merges;
    # the file's first line is a header.
    kept = lines[: 1 + VOCABULARY - 2 * 256 - 2]
    text = "\n".join(kept).encode()  # a last newline would count as a merge
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)


def augment(images, monotone, generator):
    """Random colours, background, rotation, scale, shift and mirroring.

    Parameters
    ----------
    images : tensor of shape (n, 4, h, w), float
        RGBA in [0, 1].
    monotone : tensor of shape (n,), bool
    generator : torch.Generator, on the CPU

    Returns
    -------
    tensor of shape (n, 3, h, w)
    """
    import torch
    import torch.nn.functional as F

    n, device = len(images), images.device

    def uniform(low, high, *shape):
        return (torch.rand(n, *shape, generator=generator) * (high - low) + low).to(
            device
        )

    colour, alpha = images[:, :3], images[:, 3:]
    dark = uniform(0, 0.6, 3, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.6)
    colour = torch.where(monotone[:, None, None, None], dark, colour)
    # Three random channel weights a pixel mixes towards grey, contrast and tint.
    grey = colour.mean(1, keepdim=True)
    saturation = uniform(0.5, 1.4, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) > 0.1)
    colour = grey + (colour - grey) * saturation
    colour = (colour * uniform(0.8, 1.2, 3, 1, 1) + uniform(-0.1, 0.1, 1, 1, 1)).clamp(
        0, 1
    )
    white = uniform(0, 1, 1, 1, 1) < 0.75
    background = torch.where(
        white, torch.ones((), device=device), uniform(0.6, 1, 3, 1, 1)
    )
    premultiplied = torch.cat([colour * alpha, alpha], 1)

    angle = uniform(-0.26, 0.26)
    scale = uniform(0.85, 1.3)
    mirror = 1 - 2 * (uniform(0, 1) < 0.3).float()
    theta = torch.stack(
        [
            torch.stack(
                [
                    angle.cos() * scale * mirror,
                    -angle.sin() * scale,
                    uniform(-0.12, 0.12),
                ],
                1,
            ),
            torch.stack(
                [
                    angle.sin() * scale * mirror,
                    angle.cos() * scale,
                    uniform(-0.12, 0.12),
                ],
                1,
            ),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(premultiplied.shape), align_corners=False)
    moved = F.grid_sample(premultiplied, grid, align_corners=False)
    return moved[:, :3] + background * (1 - moved[:, 3:])


def normalise(images):
    """Subtract the mean and divide by the deviation that the model folder names."""
    import torch

    mean, std = (
        torch.tensor(PREPROCESS[key], device=images.device)[:, None, None]
        for key in ("mean", "std")
    )
    return (images - mean) / std


def zero_shot_accuracy(model, tokenizer, rgb, names):
    """Accuracy with "a photo of a {}." over the given names' own classes."""
    import torch

    classes = sorted(set(names))
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        text = model.encode_text(
            tokenizer([f"a photo of a {c}." for c in classes]).to(device),
            normalize=True,
        )
        images = torch.as_tensor(rgb).permute(0, 3, 1, 2).float() / 255
        hits = 0
        for start in range(0, len(images), 256):
            batch = normalise(images[start : start + 256].to(device))
            guess = (model.encode_image(batch, normalize=True) @ text.T).argmax(1)
            hits += sum(
                classes[g] == name
                for g, name in zip(
                    guess.tolist(), names[start : start + 256], strict=True
                )
            )
    model.train()
    return hits / len(images)


def encode_short_text(model, tokens):
    """Run the text tower on the filled columns of the tokens alone.

    Attention is causal and the last token of a prompt is read out, so the padding
    behind the longest prompt changes nothing but the time.
    """
    import torch.nn.functional as F

    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(
        model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    )
    eos = x[range(len(x)), tokens.argmax(1)]
    return F.normalize(eos @ model.text_projection, dim=-1)


def train(
    model, tokenizer, parts, *, epochs, seed, batch_size=256, lr=2e-3, bf16=True, save
):
    """Contrastive training; images of one name share one target.

    A batch's texts are its distinct names, each in one random template. An image
    is to find its name, and a name spreads evenly over its images.
    """
    import torch
    import torch.nn.functional as F

    device = next(model.parameters()).device
    rgba, monotone, icons = parts["train"]
    names, name_of = np.unique([text for *_, text in icons], return_inverse=True)
    held, _, held_icons = parts["validation"]
    held, held_names = build_emoji.over_white(held), [text for *_, text in held_icons]
    pixels = torch.as_tensor(rgba).permute(0, 3, 1, 2).contiguous()
    monotone, name_of = torch.as_tensor(monotone), torch.as_tensor(name_of)

    model.visual.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0},
        ],
        lr=lr,
        betas=(0.9, 0.98),
    )
    steps = len(pixels) // batch_size
    total, warm = epochs * steps, 2 * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min((t + 1) / warm, 0.5 * (1 + math.cos(math.pi * t / total))),
    )
    began, history = time.time(), []
    for epoch in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        sum_loss = 0.0
        for step in range(steps):
            rows = order[step * batch_size : (step + 1) * batch_size]
            batch = pixels[rows].to(device).float() / 255
            batch = normalise(augment(batch, monotone[rows].to(device), generator))
            distinct, target = torch.unique(name_of[rows], return_inverse=True)
            target = target.to(device)
            chosen = rng.integers(len(TEMPLATES), size=len(distinct))
            texts = [
                TEMPLATES[c].format(names[k])
                for c, k in zip(chosen, distinct.tolist(), strict=True)
            ]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                image = model.encode_image(
                    batch.contiguous(memory_format=torch.channels_last)
                )
                text = encode_short_text(model, tokenizer(texts).to(device))
            image = F.normalize(image.float(), dim=-1)
            logits = model.logit_scale.exp() * image @ text.float().T
            of_text = F.one_hot(target, len(distinct)).T.float()
            of_text = of_text / of_text.sum(1, keepdim=True)
            loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, of_text)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            sum_loss += loss.item() / 2
            if epoch == 0 and step % 20 == 0:
                print(f"step {step}/{steps} {time.time() - began:.0f} s", flush=True)
        accuracy = zero_shot_accuracy(model, tokenizer, held, held_names)
        history.append((sum_loss / steps, accuracy))
        print(
            f"epoch {epoch + 1}/{epochs} loss {sum_loss / steps:.3f} "
            f"validation {accuracy:.3f} scale {model.logit_scale.exp().item():.1f} "
            f"{time.time() - began:.0f} s",
            flush=True,
        )
        save(model)
    return history


def save_folder(model, out):
    """Write the weights in half precision, and the configuration beside them."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    state = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(state, out / "open_clip_model.safetensors")


def write_training_list(path, icons):
    """Names of every emoji trained on, one set a line, for tests to check."""
    lines = [
        f"{style}: {' '.join(sorted(name for s, name, _ in icons if s == style))}\n"
        for style in EMOJI_SETS
    ]
    path.write_text("".join(lines))


def list_sets(icons, collections):
    """Describe the icon sets trained on as the model card's last section."""
    used = Counter(prefix for prefix, *_ in icons)
    lines = [
        "## Icon sets",
        "",
        f"All from the npm package `{PACKAGE}`; licences as it states them.",
        "",
        "| set | title | author | licence | icons |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for prefix in sorted(used):
        about = collections[prefix]
        author = about["author"]["name"]
        if url := about["author"].get("url"):
            author = f"[{author}]({url})"
        licence = about["license"]["spdx"]
        lines.append(
            f"| {prefix} | {about['name']} | {author} | {licence} | {used[prefix]} |"
        )
    return "\n".join(lines) + "\n"


def prototype_accuracy(features, emoji, shots):
    """Nearest-prototype accuracy with the given styles as shots."""
    n_classes = len(emoji.target_names)
    by_style = features.reshape(len(emoji.style_names), n_classes, -1)
    prototypes = by_style[shots].mean(0)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    guess = (np.delete(by_style, shots, axis=0) @ prototypes.T).argmax(2)
    return float((guess == np.arange(n_classes)).mean())


def evaluate(folder):
    """Print what the model card reports, from the folder as users load it."""
    from skbridge import CLIPEmbedder
    from skbridge.datasets import load_emoji

    emoji = load_emoji()
    embedder = CLIPEmbedder(model=f"local-dir:{folder}", device="cpu")
    features = embedder.fit_transform(emoji.images)
    texts = embedder.encode_text([f"a photo of a {n}." for n in emoji.target_names])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    hits = (features @ texts.T).argmax(1) == emoji.target
    print(f"zero-shot, {len(texts)} classes: {hits.mean():.3f}")
    for style in emoji.style_names:
        print(f"  {style}: {hits[emoji.styles == style].mean():.3f}")
    n_styles = len(emoji.style_names)
    rng = np.random.default_rng(0)
    for k in (1, 2, 4):
        scores = [
            prototype_accuracy(features, emoji, rng.permutation(n_styles)[:k])
            for _ in range(50)
        ]
        print(
            f"nearest prototype, {k} shot(s): {np.mean(scores):.3f} "
            f"(standard deviation over 50 draws of styles {np.std(scores):.3f})"
        )
    gap = np.linalg.norm(features.mean(0) - texts.mean(0))
    print(f"modality gap, distance of the mean unit embeddings: {gap:.3f}")


def main(argv=None):
    """Build the model folder, or report on it."""
    import open_clip
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--evaluate", action="store_true", help="report on the folder, train nothing"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build"), help="folder for the icons"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="model folder to write")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fp32", action="store_true", help="do not multiply in bfloat16"
    )
    options = parser.parse_args(argv)
    if options.evaluate:
        evaluate(options.out)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    parts, collections = prepare(options.work)
    print({part: len(icons) for part, (*_, icons) in parts.items()}, flush=True)
    vocabulary = options.out / "bpe_simple_vocab.txt.gz"
    write_vocabulary(vocabulary)
    write_training_list(options.out / "training_emoji.txt", parts["train"][2])
    card = options.out / "MODEL_CARD.md"
    words = card.read_text(encoding="utf-8") if card.exists() else ""
    words = words.partition("## Icon sets")[0]
    card.write_text(words + list_sets(parts["train"][2], collections), encoding="utf-8")
    tokenizer = open_clip.SimpleTokenizer(
        bpe_path=str(vocabulary), context_length=MODEL["text_cfg"]["context_length"]
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_clip.CLIP(**MODEL).to(device).train()
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    train(
        model,
        tokenizer,
        parts,
        epochs=options.epochs,
        seed=options.seed,
        bf16=not options.fp32,
        save=lambda trained: save_folder(trained, options.out),
    )


if __name__ == "__main__":
    main()
