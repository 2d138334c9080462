"""Order and thumbnails of the examples."""

from pathlib import Path

from PIL import Image

# The part of an example's first picture that its thumbnail shows, as shares of width
# and height: left, upper, right, lower.
WHOLE = (0, 0, 1, 1)

# Every example, in the order of the gallery.
EXAMPLES = {
    "photographs/plot_folder": WHOLE,
    "photographs/plot_uncertain": (0, 0, 0.5, 0.67),
    "photographs/plot_unknown": WHOLE,
    "photographs/plot_wrong_labels": WHOLE,
    "photographs/plot_label_next": WHOLE,
    "photographs/plot_unlabelled": WHOLE,
    "experiments/plot_prototypes": (0, 0.1, 0.46, 1),
    "experiments/plot_sensitivity": (0, 0, 0.36, 1),
    "experiments/plot_loss_terms": (0, 0, 0.57, 0.86),
    "experiments/plot_class_bias": (0, 0, 0.49, 1),
    "experiments/plot_domain_shift": (0, 0, 0.58, 1),
    "experiments/plot_backbones": (0, 0, 0.49, 1),
    "experiments/plot_embeddings_from_elsewhere": WHOLE,
    "experiments/plot_retrieval": (0.5, 0.09, 1, 0.93),
    "inspection/plot_query_explanation": (0, 0, 0.71, 0.53),
    "inspection/plot_reliability": (0, 0, 1, 0.735),
    "inspection/plot_similarity": (0, 0, 0.345, 1),
    "inspection/plot_prototype_confusion": (0, 0, 0.46, 1),
    "inspection/plot_blend_simplex": (0, 0, 1, 0.88),
    "inspection/plot_loss_curve": (0, 0, 0.67, 0.485),
    "inspection/plot_bias_norm": (0, 0, 0.5, 0.8),
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
