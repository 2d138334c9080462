"""Emoji by several artists: each concept is a class, and each style a shot."""

import bz2
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from skbridge._files import written_atomically

_DATA = Path(__file__).parent / "data"
_SIZE = 64

_DESCR = """\
Emoji in several styles
=======================

{n_classes} emoji concepts, each drawn once in every one of {n_styles} styles, as
{size} by {size} RGB pixels over white. Each concept is a class, and each style has one
image per class: k styles are k shots per class, and the other styles are the query
images. The styles {monotone} use one colour only, a domain shift from the
other styles, as from photographs to sketches.

The bundled model ``skbridge-tiny`` was trained on no emoji of these classes, in any
style.

Credits: the drawings are unchanged, but for being drawn at {size} by {size} pixels
over white. Each belongs to its authors, under its own licence; the packages are
those of the npm registry.

{credits}
Licence texts: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0;
CC-BY-4.0, https://creativecommons.org/licenses/by/4.0/;
MIT, https://opensource.org/license/mit.
"""


def load_emoji(*, styles=None, folder=None, return_X_y=False):
    """Load the bundled emoji, a few-shot data set that needs no download.

    =================   ===================
    Classes                             140
    Styles                                9
    Images                            1,260
    Pixels              64 x 64, RGB, uint8
    =================   ===================

    Parameters
    ----------
    styles : str or iterable of str, default=None
        The styles to load, in this order; all of them for None. Their names are
        the `style_names` of what is returned.
    folder : str or path-like, default=None
        When given, every image is also written there as a PNG file,
        ``STYLE/LABEL.png``, and the paths are returned as `filenames`. The folder
        is made where it is missing; files of the same names are overwritten.
    return_X_y : bool, default=False
        Return ``(images, target)`` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With these attributes; all arrays are fresh copies.

        images : ndarray of shape (n_images, 64, 64, 3), uint8
            RGB over white, one style after another and by class within a style.
        target : ndarray of shape (n_images,), int
            Class of each image, an index into `target_names`.
        target_names : list of str
            An everyday English name for each class, in order of `target`.
        unicode_names : list of str
            Each class's short name in Unicode, words joined by hyphens.
        styles : ndarray of shape (n_images,), str
            Style of each image.
        style_names : list of str
            The styles loaded.
        monotone_style_names : list of str
            Those of them that are drawn in one colour.
        filenames : list of str
            Only with `folder`: the file of each image.
        DESCR : str
            Description, credits and licences.

    (images, target) : tuple of ndarray
        With ``return_X_y=True``.

    Raises
    ------
    ValueError
        If a style is unknown or named twice, or none is named.

    Notes
    -----
    Drawn from Iconify's copies of nine emoji sets whose licences (Apache-2.0,
    CC-BY-4.0 and MIT) allow it; DESCR credits each.
    ``python tools/build_emoji.py --check`` builds the packaged file again and
    compares it byte for byte.

    Examples
    --------
    >>> from skbridge.datasets import load_emoji
    >>> emoji = load_emoji(styles=["noto", "twemoji"])
    >>> emoji.images.shape
    (280, 64, 64, 3)
    >>> emoji.target_names[:4]
    ['airplane', 'ambulance', 'anchor', 'ant']
    >>> [str(style) for style in emoji.styles[[0, -1]]]
    ['noto', 'twemoji']
    """
    meta = json.loads((_DATA / "emoji.json").read_text(encoding="utf-8"))
    names, sets = meta["target_names"], meta["styles"]
    known = [about["style"] for about in sets]
    style_names = _check_styles(styles, known)

    pixels = bz2.decompress((_DATA / "emoji.bz2").read_bytes())
    images = np.frombuffer(pixels, np.uint8).reshape(
        len(known), len(names), _SIZE, _SIZE, 3
    )
    # Indexing with a list copies: the caller gets a writable array of its own.
    images = images[[known.index(style) for style in style_names]]
    images = images.reshape(-1, _SIZE, _SIZE, 3)
    target = np.tile(np.arange(len(names)), len(style_names))

    data = Bunch(
        images=images,
        target=target,
        target_names=names,
        unicode_names=meta["unicode_names"],
        styles=np.repeat(style_names, len(names)),
        style_names=style_names,
        monotone_style_names=[
            about["style"]
            for about in sets
            if about["monotone"] and about["style"] in style_names
        ],
        DESCR=_describe(names, sets),
    )
    if folder is not None:
        data["filenames"] = _write_images(data, Path(folder))
    return (images, target) if return_X_y else data


def _check_styles(styles, known):
    if styles is None:
        return known
    if isinstance(styles, str):
        styles = [styles]
    if not isinstance(styles, Iterable):
        raise ValueError(
            "The 'styles' parameter of load_emoji must be a style, several of them, "
            f"or None. Got {styles!r} instead. The styles are: {', '.join(known)}."
        )
    styles = list(styles)
    unknown = [style for style in styles if style not in known]
    if unknown or not styles or len(set(styles)) < len(styles):
        raise ValueError(
            "The 'styles' parameter of load_emoji must name at least one of "
            f"{', '.join(known)}, each once. Got {styles!r} instead."
        )
    return styles


def _describe(names, sets):
    credit = "- {style}: {title} by {author}, {licence}, {source}; from {package}\n"
    return _DESCR.format(
        n_classes=len(names),
        n_styles=len(sets),
        size=_SIZE,
        monotone=" and ".join(about["style"] for about in sets if about["monotone"]),
        credits="".join(credit.format(**about) for about in sets),
    )


def _write_images(data, folder):
    from PIL import Image

    filenames = []
    for image, k, style in zip(data.images, data.target, data.styles, strict=True):
        path = folder / style / f"{data.target_names[k].replace(' ', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as stream:
            Image.fromarray(image).save(stream, format="PNG")
        filenames.append(str(path))
    return filenames
