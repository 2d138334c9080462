"""Folders of photographs for tests: bundled emoji, and files that are no images."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from skbridge.datasets import load_emoji

SHOTS = ["noto", "twemoji", "fxemoji"]
NEW = ["emojione", "noto-v1", "fluent-emoji"]


def write_photos(folder, styles, n_classes=5, suffix=".png"):
    """Write one folder per class, with one photograph per style."""
    emoji = load_emoji(styles=styles)
    for i in np.flatnonzero(emoji.target < n_classes):
        path = Path(folder, emoji.target_names[emoji.target[i]])
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(emoji.images[i]).save(path / f"{emoji.styles[i]}{suffix}")
    return Path(folder)


def write_bad_photos(folder):
    """Write ten files that are named like photographs, bad in different ways."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    good = folder / "whole.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(good)
    content = good.read_bytes()
    good.unlink()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "header.png").write_bytes(content[:20])
    (folder / "page.jpeg").write_text("<html><script>alert(1)</script></html>")
    (folder / "zeros.gif").write_bytes(bytes(4096))
    (folder / "flipped.png").write_bytes(content[:40] + b"\xff" * 40 + content[80:])
    (folder / "script.bmp").write_text("#!/bin/sh\nexit 1\n")
    if os.name == "posix":
        os.mkfifo(folder / "pipe.jpg")
        (folder / "gone.webp").symlink_to(folder / "nowhere.webp")
    else:
        (folder / "pipe.jpg").write_bytes(b"\xff\xd8\xff")
        (folder / "gone.webp").write_bytes(b"RIFF")
    return folder
