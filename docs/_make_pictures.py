"""Draw the README's pictures: the idea, and the accuracies of docs/accuracy.md.

    python docs/_make_pictures.py

writes ``docs/_static/idea.svg`` and ``docs/_static/results.svg``. Both have a white
ground of their own, so that they can be read on dark pages.
"""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Ellipse, FancyArrowPatch

from skbridge.datasets import load_emoji

DOCS = Path(__file__).parent
# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#B8860B", "#555555"

SHOTS = (1, 2, 4, 8, 16)
# Rows of the table, the name to show, colour, line style, marker.
METHODS = (
    ("BridgedGDA", "BridgedGDA", ORANGE, "-", "o"),
    ("SeMoBridge, default", "SeMoBridge", ORANGE, "--", "s"),
    ("GDA", "GDA", BLUE, "-", "^"),
    ("ProKeR", "ProKeR", GREEN, "-", "v"),
    ("LP++", "LP++ (trained)", PURPLE, "-", "D"),
    ("APE", "APE", YELLOW, "-", "P"),
    ("SeMoBridge, paper plain", "SeMoBridge, plain, untuned", GREY, "--", "X"),
    ("Tip-Adapter", "Tip-Adapter", SKY, "-", "*"),
)


def accuracies():
    """Mean accuracies by method, of the first table of docs/accuracy.md."""
    text = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    table = text.split("### Top-1 accuracy, %")[1].split("###")[0]
    rows = re.findall(r"^\| ([^|]+) \|([^\n]+)$", table, flags=re.MULTILINE)
    return {name: cells.split("|")[: len(SHOTS)] for name, cells in rows}


def draw_results():
    """Accuracy against the number of shots, one line a method."""
    table = accuracies()
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for row, name, colour, style, marker in METHODS:
        values = [float(cell) for cell in table[row]]
        axes.plot(
            SHOTS,
            values,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=6,
            linewidth=2.5 if row.startswith("BridgedGDA") else 1.4,
            label=name,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(SHOTS, SHOTS)
    axes.set_xlabel("shots (labelled images per class)")
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_title(
        "Mean over ten sets of features; rivals tuned on the shots alone", loc="left"
    )
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def thumbnail(axes, image, at, *, faded=False, ring=None, zoom=0.42):
    """Put a small picture on the axes, faded or with a ring around it."""
    pixels = image / 255
    if faded:
        pixels = 0.75 + 0.25 * pixels
    box = AnnotationBbox(
        OffsetImage(pixels, zoom=zoom),
        at,
        frameon=ring is not None,
        pad=0.15,
        bboxprops={"edgecolor": ring, "linewidth": 2, "boxstyle": "round"}
        if ring
        else {},
    )
    axes.add_artist(box)


def chip(axes, text, at):
    """Write a prompt in a rounded box."""
    axes.text(
        *at,
        text,
        ha="center",
        va="center",
        fontsize=9,
        color="#222222",
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": ORANGE},
    )


def arrow(axes, start, end, colour, *, style="-|>", line="-", curve=0.0):
    """Draw an arrow from one point to another."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=12,
            color=colour,
            linestyle=line,
            linewidth=1.6,
            connectionstyle=f"arc3,rad={curve}",
            shrinkA=3,
            shrinkB=3,
        )
    )


def regions(axes, title):
    """Draw the two regions of CLIP's space, and the title of a panel."""
    axes.set(xlim=(0, 10), ylim=(0, 7))
    axes.axis("off")
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=11.5, loc="left", color="#222222")
    for x, width, colour, name in (
        (2.1, 3.9, BLUE, "images"),
        (7.6, 4.6, ORANGE, "texts"),
    ):
        axes.add_patch(
            Ellipse((x, 3.5), width, 5.6, facecolor=colour, alpha=0.10, linewidth=0)
        )
        axes.text(x, 0.25, name, ha="center", color=colour, fontsize=11, weight="bold")


def draw_idea():
    """Two panels: what CLIP gives, and what the bridge makes of it."""
    emoji = load_emoji(styles=["noto", "twemoji", "fxemoji"])

    def picture(style, name):
        wanted = emoji.styles == style
        wanted &= np.array(emoji.target_names)[emoji.target] == name
        return emoji.images[np.flatnonzero(wanted)[0]]

    cat_shot, dog_shot = picture("noto", "cat"), picture("twemoji", "dog")
    query = picture("fxemoji", "cat")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.3), layout="constrained")

    regions(left, "CLIP was trained on image–text pairs only")
    thumbnail(left, cat_shot, (1.3, 5.0))
    thumbnail(left, dog_shot, (3.0, 4.6))
    thumbnail(left, query, (2.0, 2.0), ring="#222222")
    left.text(2.0, 1.05, "query", ha="center", fontsize=9, color="#222222")
    chip(left, "a photo of a cat.", (7.6, 4.7))
    chip(left, "a photo of a dog.", (7.6, 2.3))
    arrow(left, (1.85, 2.6), (1.4, 4.45), GREY, style="<|-|>", line=":")
    arrow(left, (2.25, 2.6), (2.85, 4.1), GREY, style="<|-|>", line=":")
    left.text(2.3, 3.35, "?", fontsize=15, color=GREY, ha="center", va="center")
    arrow(left, (2.6, 2.1), (6.0, 4.55), GREEN, style="<|-|>")
    arrow(left, (2.6, 2.0), (6.0, 2.3), GREEN, style="<|-|>")
    left.text(4.55, 5.1, "modality gap", ha="center", fontsize=9, color=GREY)

    regions(right, "The bridge gives the shots a place among the texts")
    thumbnail(right, cat_shot, (1.3, 5.0), faded=True)
    thumbnail(right, dog_shot, (3.0, 4.6), faded=True)
    thumbnail(right, query, (2.0, 2.0), ring="#222222")
    right.text(2.0, 1.05, "query", ha="center", fontsize=9, color="#222222")
    chip(right, "a photo of a cat.", (8.1, 5.2))
    thumbnail(right, cat_shot, (7.0, 4.3))
    chip(right, "a photo of a dog.", (8.1, 1.8))
    thumbnail(right, dog_shot, (7.0, 2.7))
    arrow(right, (1.75, 5.3), (6.5, 4.55), BLUE, curve=-0.25)
    arrow(right, (3.45, 4.7), (6.5, 2.95), BLUE, curve=-0.2)
    right.text(4.6, 6.25, "W⁺ W, closed form", ha="center", fontsize=10, color=BLUE)
    arrow(right, (2.6, 2.2), (6.5, 4.1), GREEN, style="<|-|>")
    arrow(right, (2.6, 1.95), (6.5, 2.5), GREEN, style="<|-|>")
    return figure


def main():
    """Write both pictures."""
    style = {
        "svg.hashsalt": "skbridge",
        "figure.facecolor": "white",
        "font.size": 10,
    }
    with plt.rc_context(style):
        for name, draw in (("idea", draw_idea), ("results", draw_results)):
            path = DOCS / "_static" / f"{name}.svg"
            draw().savefig(path, metadata={"Date": None})
            print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
