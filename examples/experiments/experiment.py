"""The data that the experiments share, and their command line."""

import argparse
from itertools import chain

import numpy as np
from sklearn.utils import Bunch

from skbridge.datasets import load_emoji, load_few_shot_dataset, sample_few_shot

# Number of training images per class from which shots are drawn: to embed all of
# ImageNet's for 16 shots would take hours.
POOL = 64
# Styles of the shots, of queries in colour, and of queries in one colour, which are by
# the same two artists as the second: of those only the domain differs.
DOMAINS = (
    ["fxemoji", "noto", "noto-v1", "twemoji"],
    ["emojione", "fluent-emoji-flat"],
    ["emojione-monotone", "fluent-emoji-high-contrast"],
)
SHIFTED = {"imagenet": ("imagenet_v2", "imagenet_sketch")}


def load_experiment(shifts=False):
    """Load what the command line asks for; the bundled emoji by default.

    Options: ``--data NAME --root FOLDER`` for a data set on disk, ``--model NAME``
    for another model than ViT-B-16 on it, ``--quick`` for a test of the code.

    Parameters
    ----------
    shifts : bool, default=False
        Set query images of another domain apart: the monotone styles of emoji,
        ImageNetV2 and ImageNet-Sketch for ImageNet.

    Returns
    -------
    Bunch
        ``images`` and ``target``, all of them; ``class_names``, ``templates`` and
        ``model`` to embed them with; ``numbers``, of shots to try; ``queries``,
        masks of the query images, of ``domain``: each style of emoji once, or the
        test images; ``shifted``, masks of those of other domains by name;
        ``seeds``, one per repetition; ``quick``.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--data", default="emoji", help="emoji, or a name of the paper")
    parser.add_argument("--root", help="folder that holds the data set")
    parser.add_argument("--model", help="CLIP model, if not the default of the data")
    parser.add_argument("--quick", action="store_true", help="test the code, no more")
    options = parser.parse_args()
    if options.data == "emoji":
        data = _load_emoji(shifts, 20 if options.quick else None)
    else:
        data = _load_from_disk(options.data, options.root, shifts)
    data.model = options.model or data.model
    data.quick = options.quick
    if options.quick:
        data.seeds = data.seeds[:1]
        data.queries = data.queries[:1]
    return data


def _load_emoji(shifts, n_classes):
    emoji = load_emoji(styles=[*chain(*DOMAINS)] if shifts else None)
    names = emoji.target_names[:n_classes]
    kept = emoji.target < len(names)
    styles = emoji.styles[kept]
    queries, shifted = [styles == style for style in emoji.style_names], {}
    if shifts:
        coloured, one_colour = (np.isin(styles, domain) for domain in DOMAINS[1:])
        queries, shifted = [coloured], {"in one colour": one_colour}
    return Bunch(
        images=emoji.images[kept],
        target=emoji.target[kept],
        class_names=names,
        templates="simple",
        model="skbridge-tiny",
        domain="in colour",
        numbers=(1, 2, 4) if shifts else (1, 4, 8),
        queries=queries,
        shifted=shifted,
        seeds=range(5 if shifts else len(queries)),
    )


def _load_from_disk(name, root, shifts):
    train = load_few_shot_dataset(name, root, split="train")
    pool, labels = sample_few_shot(
        train.filenames, train.target, POOL, random_state=0, too_few="ignore"
    )
    others = SHIFTED.get(name, ()) if shifts else ()
    tests = [load_few_shot_dataset(other, root) for other in (name, *others)]
    sizes = [len(pool), *(len(test.target) for test in tests)]
    part = np.repeat(np.arange(len(sizes)), sizes)
    return Bunch(
        images=sum((test.filenames for test in tests), pool),
        target=np.concatenate([labels, *(test.target for test in tests)]),
        class_names=train.class_names,
        templates=train.templates,
        model="ViT-B-16",
        domain=name,
        numbers=(1, 4, 16),
        queries=[part == 1],
        shifted={other: part == i for i, other in enumerate(others, start=2)},
        seeds=range(5),
    )


def draw(data, n_shots, seed):
    """Rows of the shots, drawn at random by class, and of the queries.

    With one seed, fewer shots are some of the more, and the queries are the same.
    """
    is_query = data.queries[seed % len(data.queries)]
    rows = np.flatnonzero(~np.any([is_query, *data.shifted.values()], axis=0))
    shots, _ = sample_few_shot(rows, data.target[rows], n_shots, seed, too_few="ignore")
    return shots, np.flatnonzero(is_query)
