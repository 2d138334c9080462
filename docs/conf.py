"""Sphinx configuration. ``make docs`` builds the site without a network."""

import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import skbridge

sys.path.insert(0, str(Path(__file__).parent))
from _gallery import SECTIONS, crop_thumbnails

project = "skbridge"
author = "the skbridge developers"
copyright = author
release = version = skbridge.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "auto_examples/**/*.ipynb"]
templates_path = ["_templates"]
default_role = "literal"
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# The class template lists the members, so that numpydoc need not.
numpydoc_show_class_members = False
autodoc_typehints = "none"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": [f"../examples/{section}" for section in SECTIONS],
    "within_subsection_order": "_gallery.Order",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "abort_on_example_error": True,
    "backreferences_dir": "auto_examples/backreferences",
    "doc_module": ("skbridge",),
    "reference_url": {"skbridge": None},
    "download_all_examples": False,
    "show_signature": False,
    "parallel": 2,
}

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
PROJECT = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT.get("urls", {}).get("Repository")

html_theme = "pydata_sphinx_theme"
html_title = "skbridge"
html_static_path = ["_static"]
html_css_files = ["skbridge.css"]
html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in (
        "getting_started",
        "comparison",
        "performance",
        "reproduce",
        "faq",
        "changelog",
        "contributing",
    )
}
html_theme_options = {
    "show_prev_next": True,
    # The header links to the repository once pyproject.toml names it.
    **({"github_url": REPOSITORY} if REPOSITORY else {}),
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def skip_metadata_routing(app, what, name, obj, skip, options):
    """Leave out ``set_fit_request`` and its kin, which scikit-learn generates."""
    return skip or bool(re.fullmatch(r"set_\w+_request", name))


def split_parameters(app, what, name, obj, options, lines):
    """List the parameters after the first blank line among them as further ones.

    Docstrings group parameters by blank lines, the most important group first;
    numpydoc would join the groups.
    """
    if what != "class" or "Parameters" not in lines:
        return
    start = lines.index("Parameters") + 2
    for i, (line, following) in enumerate(pairwise(lines[start:]), start):
        if following.startswith("---"):
            return
        if not line and following and not following.startswith(" "):
            if not lines[i + 2].startswith("---"):
                lines[i + 1 : i + 1] = ["Other Parameters", "-" * 16]
            return


def order_parameters(app, what, name, obj, options, lines):
    """Move the further parameters before the attributes, where numpydoc puts them."""
    if ":Other Parameters:" not in lines or ":Attributes:" not in lines:
        return
    start = lines.index(":Other Parameters:")
    after = range(start + 1, len(lines))
    end = next((i for i in after if lines[i][:1] not in ("", " ")), len(lines))
    block = lines[start:end]
    del lines[start:end]
    at = lines.index(":Attributes:")
    lines[at:at] = block


def setup(app):
    """Connect what is not an option."""
    # After the gallery is built, and before numpydoc reads docstrings.
    app.connect("builder-inited", crop_thumbnails, priority=900)
    app.connect("autodoc-process-docstring", split_parameters, priority=400)
    app.connect("autodoc-process-docstring", order_parameters, priority=600)
    app.connect("autodoc-skip-member", skip_metadata_routing)
