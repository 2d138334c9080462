"""Order and thumbnails of the examples."""

from pathlib import Path

from PIL import Image

# The part of an example's first picture that its thumbnail shows, as shares of width
# and height: left, upper, right, lower.
WHOLE = (0, 0, 1, 1)

# Every example, in the order of the gallery.
EXAMPLES = {
    "photographs/plot_folder": WHOLE,
    "photographs/plot_uncertain": WHOLE,
    "photographs/plot_unknown": WHOLE,
    "photographs/plot_wrong_labels": WHOLE,
    "photographs/plot_label_next": WHOLE,
    "photographs/plot_unlabelled": WHOLE,
    "experiments/plot_prototypes": WHOLE,
    "experiments/plot_sensitivity": WHOLE,
    "experiments/plot_loss_terms": WHOLE,
    "experiments/plot_class_bias": WHOLE,
    "experiments/plot_domain_shift": WHOLE,
    "experiments/plot_backbones": WHOLE,
    "experiments/plot_embeddings_from_elsewhere": WHOLE,
    "experiments/plot_retrieval": WHOLE,
    "inspection/plot_query_explanation": WHOLE,
    "inspection/plot_reliability": WHOLE,
    "inspection/plot_similarity": WHOLE,
    "inspection/plot_prototype_confusion": WHOLE,
    "inspection/plot_blend_simplex": WHOLE,
    "inspection/plot_loss_curve": WHOLE,
    "inspection/plot_bias_norm": WHOLE,
}
SECTIONS = list(dict.fromkeys(name.split("/")[0] for name in EXAMPLES))


class Order:
    """Sort the files of one section as `EXAMPLES` does."""

    def __init__(self, src_dir):
        self._section = Path(src_dir).name

    def __call__(self, filename):
        """Position of a file; one that is not listed is last."""
        names = list(EXAMPLES)
        name = f"{self._section}/{Path(filename).stem}"
        return names.index(name) if name in EXAMPLES else len(names)


def crop_thumbnails(app):
    """Replace each thumbnail by the part of the picture that stays readable."""
    for name, (left, upper, right, lower) in EXAMPLES.items():
        section, stem = name.split("/")
        folder = Path(app.srcdir, "auto_examples", section, "images")
        picture = folder / f"sphx_glr_{stem}_001.png"
        if not picture.exists():  # Examples are not run in a quick build.
            continue
        with Image.open(picture) as image:
            width, height = image.size
            box = (left * width, upper * height, right * width, lower * height)
            part = image.convert("RGB").crop(tuple(map(round, box)))
        part.thumbnail((640, 448))
        part.save(folder / "thumb" / f"sphx_glr_{stem}_thumb.png")
