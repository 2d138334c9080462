"""Prompts from class names and templates, in all forms that `templates` takes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from difflib import get_close_matches

from skbridge._messages import brief, shown
from skbridge._texts.templates import TEMPLATES


def check_names(names, argument, *, distinct=True):
    """Validate a list of class names.

    Parameters
    ----------
    names : iterable of str
    argument : str
        Name of the parameter, for errors.
    distinct : bool, default=True
        Whether to refuse repeated names.

    Returns
    -------
    tuple of str

    Raises
    ------
    TypeError, ValueError
        If `names` is not a list of non-empty strings.
    """
    if isinstance(names, (str, bytes, Mapping, Set)) or not isinstance(names, Iterable):
        remedy = " Wrap it in a list." if isinstance(names, str) else ""
        raise TypeError(
            f"{argument} must be a list of names, in the order of the classes; got "
            f"{brief(names)} of type {type(names).__name__}.{remedy}"
        )
    names = list(names)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(
            f"{argument} must be strings, got {brief(wrong[0])} of type "
            f"{type(wrong[0]).__name__}."
        )
    if not names:
        raise ValueError(f"{argument} is empty; expected at least one class name.")
    names = tuple(map(str, names))
    blank = [index for index, name in enumerate(names) if not name.strip()]
    if blank:
        raise ValueError(f"{argument} has an empty name at position {blank[0]}.")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if distinct and twice:
        raise ValueError(
            f"{argument} must be distinct names, but these are repeated: "
            f"{shown(twice)}."
        )
    return names


def as_prompts(class_names, templates="simple"):
    """Write the prompts of every class.

    Parameters
    ----------
    class_names : sequence of str
        ``_`` in a name becomes a space in its prompts.
    templates : str, dict, or list of these, default="simple"
        - a name: ``"simple"`` (*a photo of a {}.*), ``"openai_imagenet"`` (80
          templates), ``"openai_imagenet_7"``, or a data set's
          (``"caltech101"``, ``"dtd"``, ``"eurosat"``, ``"fgvc_aircraft"``,
          ``"food101"``, ``"imagenet"``, ``"oxford_flowers"``,
          ``"oxford_pets"``, ``"stanford_cars"``, ``"sun397"``, ``"ucf101"``);
        - a format string with one ``{}``;
        - a dict of class name -> prompt or list of prompts, ready to use (as
          CuPL's); keys match without regard to case, and ``_`` as a space;
        - a list of these: their prompts are concatenated, with equal weights.

    Returns
    -------
    tuple of tuple of str
        One tuple of prompts per class, in the given order, repeated prompts included.

    Raises
    ------
    ValueError
        For a class with no prompt, an unknown template name, or a format string
        without exactly one ``{}``.
    TypeError
        For templates or prompts of another type.

    Examples
    --------
    >>> from skbridge._texts.prompts import as_prompts
    >>> as_prompts(["sea_lion"], ["simple", {"Sea lion": "a seal with ears."}])
    (('a photo of a sea lion.', 'a seal with ears.'),)
    """
    class_names = check_names(class_names, "class_names")
    parts = list(templates) if isinstance(templates, (list, tuple)) else [templates]
    writers = [_prompt_writer(part) for part in parts]
    prompts = tuple(
        tuple(prompt for write in writers for prompt in write(name))
        for name in class_names
    )
    silent = [
        name for name, written in zip(class_names, prompts, strict=True) if not written
    ]
    if silent:
        raise ValueError(
            f"templates gives no prompt for {len(silent)} of {len(class_names)} "
            f"classes: {shown(silent)}. Add them to the dict, or combine it with "
            "a template: templates=[your_dict, 'simple']."
        )
    return prompts


def _prompt_writer(template):
    """Make a function from class name to the prompts of one template."""
    if isinstance(template, Mapping):
        return _dict_writer(template)
    if not isinstance(template, str):
        raise TypeError(
            "templates must be a name, a format string, a dict of class name -> "
            f"prompts, or a list of these; got {brief(template)} of type "
            f"{type(template).__name__}."
        )
    if template in TEMPLATES:
        formats = TEMPLATES[template]
    elif template.count("{}") == 1:
        formats = (template,)
    else:
        near = get_close_matches(template, TEMPLATES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"templates={brief(template)} is neither a known name nor a format string "
            f"with exactly one '{{}}'.{hint} Known names: {', '.join(TEMPLATES)}."
        )
    return lambda name: [text.replace("{}", name.replace("_", " ")) for text in formats]


def _dict_writer(template):
    prompts, spelling = {}, {}
    for key, value in template.items():
        if not isinstance(key, str):
            raise TypeError(
                f"The keys of a templates dict are class names, got {key!r}."
            )
        many = not isinstance(value, str) and isinstance(value, Iterable)
        texts = list(value) if many else [value]
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise TypeError(
                    f"The prompts of class {key!r} must be non-empty strings, got "
                    f"{brief(text)}."
                )
        if _folded(key) in prompts:
            raise ValueError(
                f"The templates dict has {spelling[_folded(key)]!r} and {key!r}, "
                "which name the same class: keys match without regard to case."
            )
        prompts[_folded(key)], spelling[_folded(key)] = texts, key
    return lambda name: prompts.get(_folded(name), [])


def _folded(name):
    return name.replace("_", " ").casefold()
