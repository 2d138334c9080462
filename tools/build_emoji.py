"""Builds the packaged emoji data set from pinned npm packages.

Run ``python tools/build_emoji.py`` to write the packaged files
anew, with ``--check`` to build them in memory and compare them byte for byte
with the packaged ones. It needs the extra ``build`` (resvg_py, which draws SVG)
and the ``npm`` client; the library itself never imports this module.

The pixels are stored raw, compressed with bzip2: unlike DEFLATE, which every
fork of zlib emits differently, bzip2 has one encoder whose output has not changed
for many years, so a rebuild can be compared byte for byte. On another processor
architecture the renderer may round an edge pixel differently; the check was made
on x86-64.
"""

# ruff: noqa: SIM905 (names read, and are edited, better as words than as a list)
import argparse
import bz2
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "skbridge" / "datasets" / "data"
SIZE = 64

# style: (npm package version, SHA-256 of its contents, drawn in one colour).
STYLES = {
    "emojione": (
        "1.2.3",
        "11c889c3c377c9d07c874368e9b52ee649112fe1b1532d4b10acc0e65209635b",
        False,
    ),
    "emojione-monotone": (
        "1.2.1",
        "f3ad70daeabad4d1c755e09cec8b060263edcc7247bc54ff113773366afe7a61",
        True,
    ),
    "fluent-emoji": (
        "1.2.7",
        "701c5097e43e76309422e2c5ff0238965539cc1da3e6dd6cc57a71e3c7f876ef",
        False,
    ),
    "fluent-emoji-flat": (
        "1.2.6",
        "dfa30ec31760e45dcb27639a298f888ef557f1fdf1fe029b0a94188353a42644",
        False,
    ),
    "fluent-emoji-high-contrast": (
        "1.2.6",
        "6ecef036ffad38542819ab131530e8df17b81f42f388b086815f2ad7bd1d4f0e",
        True,
    ),
    "fxemoji": (
        "1.2.2",
        "6f170badc5d1d88cc6011ff80d776146a0cabf663e741c8557568aaeda646141",
        False,
    ),
    "noto": (
        "1.2.9",
        "fd5f6fefb1c31539eeb3bbd568c830c5bdd4cfdcb193ef5832db3988ad428327",
        False,
    ),
    "noto-v1": (
        "1.2.5",
        "72e4f3b6e85cde3e44733dc7be2af1f284b722bbf941baf56a220e91554f4d29",
        False,
    ),
    "twemoji": (
        "1.2.5",
        "c126f3bf07e1d1b72e435c1d50ddd73823499eef591ac85486dda1cba317ff92",
        False,
    ),
}

LICENCES = {"Apache-2.0", "MIT", "CC-BY-4.0"}

# Unicode short name: everyday English label, where the two differ.
LABELS = {
    "admission-tickets": "tickets",
    "artist-palette": "palette",
    "automobile": "car",
    "blowfish": "pufferfish",
    "doughnut": "donut",
    "electric-plug": "plug",
    "fire-engine": "fire truck",
    "headphone": "headphones",
    "honeybee": "bee",
    "hot-beverage": "cup of coffee",
    "jack-o-lantern": "pumpkin",
    "lady-beetle": "ladybug",
    "red-apple": "apple",
}

CLASSES = """
airplane ambulance anchor ant artist-palette automobile baby-bottle balloon
banana battery beer-mug bell bicycle bird birthday-cake blowfish bomb books
bread briefcase bus cactus camera candle candy cat cherries cherry-blossom
christmas-tree church cloud cookie cow credit-card crescent-moon crocodile crown
dog dolphin door doughnut dress droplet ear electric-plug elephant envelope eye
factory ferris-wheel fire fire-engine fish fountain four-leaf-clover french-fries
fuel-pump ghost glasses goat graduation-cap grapes guitar hamburger hammer
headphone helicopter honeybee horse hospital hot-beverage ice-cream
jack-o-lantern jeans key koala lady-beetle lemon light-bulb lollipop maple-leaf
microphone microscope monkey motorcycle mushroom musical-note newspaper octopus
palm-tree peach pear pencil penguin pig pill pineapple printer rainbow red-apple
ring rocket rooster rose sailboat saxophone scroll seedling ship skull snail
snake snowflake soccer-ball spider star strawberry sunflower sushi syringe taxi
telescope television tent thermometer toilet tomato tornado tractor trophy
trumpet tulip turtle umbrella volcano watch watermelon whale wine-glass wrench
""".split()


def fetch_package(name, folder):
    """Download one npm package, "name@version", and return its open tar file."""
    done = subprocess.run(
        ["npm", "pack", "--silent", name],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return tarfile.open(Path(folder) / done.stdout.strip().splitlines()[-1])


def read_icons(package, digest):
    """Read the icons of an Iconify package and what it says of itself.

    Parameters
    ----------
    package : tarfile.TarFile
    digest : str
        SHA-256 of ``icons.json`` followed by ``info.json``.
    """
    icons, info = (
        package.extractfile(f"package/{member}.json").read()
        for member in ("icons", "info")
    )
    found = hashlib.sha256(icons + info).hexdigest()
    if found != digest:
        raise ValueError(f"{package.name} holds SHA-256 {found}, expected {digest}")
    return json.loads(icons), json.loads(info)


def icon_svg(icons, name):
    """SVG text of one icon of an Iconify JSON set."""
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def render(svg, size=SIZE):
    """Draw SVG text, its longer side `size` pixels, centred on a clear square.

    Returns
    -------
    ndarray of shape (size, size, 4), uint8
        Straight (not premultiplied) RGBA.
    """
    import resvg_py
    from PIL import Image

    width, height = (
        float(svg.split(f'{key}="', 1)[1].split('"', 1)[0])
        for key in ("width", "height")
    )
    side = {"width": size} if width >= height else {"height": size}
    png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, **side)
    drawn = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    out = np.zeros((size, size, 4), np.uint8)
    y, x = ((size - n) // 2 for n in drawn.shape[:2])
    out[y : y + drawn.shape[0], x : x + drawn.shape[1]] = drawn
    return out


def over_white(rgba):
    """Composite straight RGBA over white, in exact integer arithmetic."""
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def key_in(style, name):
    """Name an icon as one style does; fxemoji writes words without hyphens."""
    return name.replace("-", "") if style == "fxemoji" else name


def build():
    """Build the packaged files.

    Returns
    -------
    dict of str to bytes
        File name and content.
    """
    images = np.empty((len(STYLES), len(CLASSES), SIZE, SIZE, 3), np.uint8)
    credits = []
    for images_of_style, (style, (version, digest, monotone)) in zip(
        images, STYLES.items(), strict=True
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            fetch_package(f"@iconify-json/{style}@{version}", folder) as package,
        ):
            icons, info = read_icons(package, digest)
        if info["license"]["spdx"] not in LICENCES:
            raise ValueError(f"{style} is under {info['license']['spdx']}")
        for image, name in zip(images_of_style, CLASSES, strict=True):
            image[:] = over_white(render(icon_svg(icons, key_in(style, name))))
        credits.append(
            {
                "style": style,
                "monotone": monotone,
                "title": info["name"],
                "author": info["author"]["name"],
                "source": info["author"]["url"],
                "licence": info["license"]["spdx"],
                "package": f"@iconify-json/{style}@{version}",
            }
        )
    meta = {
        "unicode_names": CLASSES,
        "target_names": [LABELS.get(c, c.replace("-", " ")) for c in CLASSES],
        "styles": credits,
    }
    return {
        "emoji.bz2": bz2.compress(images.tobytes(), 9),
        "emoji.json": (json.dumps(meta, indent=1) + "\n").encode(),
    }


def main(argv=None):
    """Write the packaged files, or compare them with a fresh build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args(argv).check
    differ = []
    for name, content in build().items():
        path = DATA / name
        if check and (not path.exists() or path.read_bytes() != content):
            differ.append(name)
        if not check:
            path.write_bytes(content)
        print(f"{name}: {len(content)} bytes, {hashlib.sha256(content).hexdigest()}")
    if differ:
        sys.exit(f"differs from the packaged file: {', '.join(differ)}")


if __name__ == "__main__":
    main()
