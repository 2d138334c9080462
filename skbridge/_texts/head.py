"""The frozen text side of a CLIP model: class texts, projection, logit scale."""

import json
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from skbridge._messages import shown
from skbridge._texts.encode import project, text_side
from skbridge._texts.head_checks import (
    ARRAYS,
    as_float,
    check_class_labels,
    check_content,
    check_logit_scale,
    check_pair,
    check_shapes,
    count,
    read_only,
    unit_rows,
)
from skbridge._texts.head_file import content_digest, read_head, write_head
from skbridge._texts.prompts import as_prompts, check_names


class _UnknownClassError(KeyError):
    """A KeyError that shows its message as it was written."""

    def __str__(self):
        return self.args[0]


class TextHead:
    """Class texts and text projection of a CLIP model, as immutable arrays.

    The arrays are read-only, copies and clones are the head itself, and heads with
    equal content are equal and have equal hashes. Make a head with `from_clip`,
    `from_arrays` or `from_features`, or read one with `load`.

    Attributes
    ----------
    classes : tuple of str or int, or None
        Labels of the classes; None for a head without classes.
    prompts : tuple of tuple of str or None
        Prompts of each class; None if they are not known.
    eos : ndarray of shape (n_classes, n_text_features) or None
        Mean over the EOS tokens of the prompts of each class, e.
    eos_unit : ndarray of shape (n_classes, n_text_features) or None
        Mean over the unit EOS tokens of each class, scaled to length 1, E.
    text_features : ndarray of shape (n_classes, n_features) or None
        Mean over the unit text features of each class, scaled to length 1, T.
    projection : ndarray of shape (n_text_features, n_features) or None
        CLIP's text projection W, ``text = eos @ W + c``.
    projection_bias : ndarray of shape (n_features,) or None
        Its bias c; None means zero.
    text_bank : ndarray of shape (n_texts, n_features) or None
        Embeddings of further texts, from which the text subspace is computed.
    logit_scale : float
        CLIP's factor of cosine similarities in its softmax.
    model : str or None
        CLIP model of the texts, for messages.
    n_features : int
        Width d of the embeddings.

    See Also
    --------
    CLIPTexts : Makes heads for the labels that a classifier sees.
    SeMoBridgeClassifier : Accepts a head as its `texts`.
    SemanticBridge : Needs only the projection or the text bank of a head.

    Examples
    --------
    >>> import numpy as np
    >>> from skbridge import TextHead
    >>> head = TextHead.from_arrays(
    ...     ["cat", "dog"], eos=np.eye(2), projection=np.ones((2, 3))
    ... )
    >>> head
    TextHead(2 classes, 3 features, projection 2 x 3)
    >>> head[["dog"]].classes
    ('dog',)
    """

    def __init__(self):
        raise TypeError(
            "TextHead is made by TextHead.from_clip, TextHead.from_arrays, "
            "TextHead.from_features or TextHead.load."
        )

    # Constructors

    @classmethod
    def from_clip(
        cls,
        class_names,
        model="ViT-B-16",
        *,
        pretrained="auto",
        templates="simple",
        classes=None,
        device="auto",
        batch_size=256,
        cache_dir=None,
    ):
        """Embed class names with the text tower of a CLIP model.

        Parameters
        ----------
        class_names : sequence of str
            Distinct names. ``_`` becomes a space in prompts.
        model : str or path-like, default="ViT-B-16"
            The CLIP model: an open_clip name, ``"skbridge-tiny"``, a folder, or
            ``"ORGANISATION/REPOSITORY"`` of the Hugging Face hub.
        pretrained : str, path-like or None, default="auto"
            Its weights, as for :class:`CLIPEmbedder`.
        templates : str, dict, or list of these, default="simple"
            - a name: ``"simple"`` (*a photo of a {}.*), ``"openai_imagenet"`` (80
              templates), ``"openai_imagenet_7"``, or a data set's, such as
              ``"eurosat"`` or ``"oxford_pets"``;
            - a format string with one ``{}``;
            - a dict of class name -> prompt or list of prompts, ready to use (as
              CuPL's); keys match without regard to case, and ``_`` as a space;
            - a list of these: prompts concatenate and weigh equally.
        classes : sequence of str or int, default=None
            Label of each class; None takes the names.
        device : str, default="auto"
            Where to run the text tower.
        batch_size : int, default=256
            Prompts in one forward pass.
        cache_dir : str, path-like or None, default=None
            Folder in which class texts are stored, as for
            :class:`CLIPEmbedder`: "auto" is ``SKBRIDGE_CACHE_DIR``, else the user's
            cache folder; None is ``SKBRIDGE_CACHE_DIR``, if it is set.

        Returns
        -------
        TextHead
            With float32 arrays.

        Raises
        ------
        ValueError
            For duplicate names, a class with no prompt, an unknown model, or a
            text tower whose projection is not linear.

        Notes
        -----
        Of the prompts of class k, with EOS tokens e and text features
        ``t = e W + c``: ``T_k = unit(mean unit(t))``, ``e_k = mean e`` and
        ``E_k = unit(mean unit(e))``. Each distinct prompt passes the tower once.

        The texts of a class are encoded once per model: they stay in memory as long
        as the model is loaded, and are stored on disk if `cache_dir` names a folder.
        The model is not loaded where all classes are on disk.

        Examples
        --------
        >>> from skbridge import TextHead
        >>> head = TextHead.from_clip(["cat", "dog"], model="skbridge-tiny")
        >>> head.prompts[0]
        ('a photo of a cat.',)
        """
        names = check_names(class_names, "class_names")
        classes = names if classes is None else check_class_labels(classes, "classes")
        prompts = as_prompts(names, templates)
        side = text_side(
            prompts,
            model,
            pretrained,
            device=device,
            batch_size=batch_size,
            cache_dir=cache_dir,
        )
        return cls._make(
            classes=classes,
            prompts=prompts,
            eos=side.eos,
            eos_unit=side.eos_unit,
            text_features=side.text_features,
            projection=side.projection,
            projection_bias=side.bias,
            logit_scale=side.logit_scale,
            model=side.label,
        )

    @classmethod
    def from_arrays(
        cls,
        classes=None,
        eos=None,
        projection=None,
        logit_scale=100.0,
        *,
        projection_bias=None,
        eos_unit=None,
        text_features=None,
    ):
        """Build a head from EOS tokens and the text projection.

        Parameters
        ----------
        classes : sequence of str or int, default=None
            Distinct labels, one per row of `eos`. With neither `classes` nor
            `eos` the head knows the projection only.
        eos : array-like of shape (n_classes, n_text_features), default=None
            EOS token of each class after the final layer norm, before the
            projection (the mean over its prompts).
        projection : array-like of shape (n_text_features, n_features)
            Text projection W, ``text = eos @ W + c``. Of a tower without one,
            ``np.eye(n_text_features)``.
        logit_scale : float, default=100.0
            Factor on cosine similarities.
        projection_bias : array-like of shape (n_features,), default=None
            Bias c; None means zero.
        eos_unit : array-like of shape (n_classes, n_text_features), default=None
            Mean of the unit EOS tokens of each class, scaled to unit rows here;
            None means ``unit(eos)``, which is the same for one prompt per class.
        text_features : array-like of shape (n_classes, n_features), default=None
            Mean of the unit text features of each class, scaled to unit rows
            here; None means ``unit(eos @ W + c)``.

        Returns
        -------
        TextHead
            In float32 if all arrays are (float16 too), else in float64.

        Raises
        ------
        ValueError
            For shapes that disagree, values that are not finite, rows of zeros,
            duplicate names, or a missing projection.

        Examples
        --------
        >>> import numpy as np
        >>> from skbridge import TextHead
        >>> TextHead.from_arrays(projection=np.ones((2, 3)))
        TextHead(no classes, 3 features, projection 2 x 3)
        """
        if projection is None:
            raise ValueError(
                "projection is missing. Pass the text projection W of shape "
                "(n_text_features, n_features); np.eye(n_text_features) for a "
                "text tower without one. If W is not known, use "
                "TextHead.from_features."
            )
        check_pair(
            classes,
            eos,
            "eos",
            "Pass both, or neither for a head that knows the projection only. With "
            "text features but no EOS tokens, use TextHead.from_features.",
        )
        derived = {"eos_unit": eos_unit, "text_features": text_features}
        if eos is None:
            for name, value in derived.items():
                if value is not None:
                    raise ValueError(f"{name} was given without classes and eos.")
        arrays = as_float(
            eos=eos,
            projection=projection,
            projection_bias=projection_bias,
            **derived,
        )
        head = cls._checked(classes, logit_scale, arrays)
        if eos is None:
            return head
        arrays.setdefault("eos_unit", head.eos)
        arrays.setdefault(
            "text_features", project(head.eos, head.projection, head.projection_bias)
        )
        return head._with_unit_rows(arrays, *derived)

    @classmethod
    def from_features(
        cls, classes=None, text_features=None, *, text_bank=None, logit_scale=100.0
    ):
        """Build a head from text features alone, as an embedding API gives them.

        Parameters
        ----------
        classes : sequence of str or int, default=None
            Distinct labels, one per row of `text_features`.
        text_features : array-like of shape (n_classes, n_features), default=None
            Text feature of each class, scaled to unit rows here.
        text_bank : array-like of shape (n_texts, n_features), default=None
            Features of a few hundred texts or more on anything at all; their
            leading directions stand in for the row space of the projection.
        logit_scale : float, default=100.0
            Factor on cosine similarities.

        Returns
        -------
        TextHead
            In float32 if all arrays are (float16 too), else in float64.

        Raises
        ------
        ValueError
            When neither classes with text features nor a bank is given, for
            shapes that disagree, values that are not finite, rows of zeros or
            duplicate names.

        Examples
        --------
        >>> import numpy as np
        >>> from skbridge import TextHead
        >>> TextHead.from_features(["cat", "dog"], np.eye(2, 5))
        TextHead(2 classes, 5 features)
        """
        check_pair(classes, text_features, "text_features")
        if text_features is None and text_bank is None:
            raise ValueError(
                "from_features needs classes with text_features, a text_bank, or both."
            )
        arrays = as_float(text_features=text_features, text_bank=text_bank)
        head = cls._checked(classes, logit_scale, arrays)
        return (
            head if classes is None else head._with_unit_rows(arrays, "text_features")
        )

    @classmethod
    def _checked(cls, classes, logit_scale, arrays):
        labels = None if classes is None else check_class_labels(classes, "classes")
        return cls._make(classes=labels, logit_scale=logit_scale, **arrays)

    def _with_unit_rows(self, arrays, *names):
        rows = {name: unit_rows(arrays[name], name, self.classes) for name in names}
        return TextHead._make(**self._content() | rows)

    @classmethod
    def _make(cls, **content):
        """Check that the parts fit together and freeze them."""
        head = object.__new__(cls)
        classes, prompts = content.get("classes"), content.get("prompts")
        fields = {
            "classes": None if classes is None else tuple(classes),
            "prompts": None if prompts is None else tuple(map(tuple, prompts)),
            "logit_scale": check_logit_scale(content.get("logit_scale", 100.0)),
            "model": content.get("model"),
            "_digest": None,
        }
        for name in ARRAYS:
            fields[name] = read_only(content.get(name), name)
        fields["n_features"] = check_shapes(fields)
        for name, value in fields.items():
            object.__setattr__(head, name, value)
        return head

    # Value semantics

    def __setattr__(self, name, value):
        raise AttributeError(
            f"TextHead is immutable: {name!r} cannot be set. Make a new head."
        )

    def __delattr__(self, name):
        raise AttributeError(
            f"TextHead is immutable: {name!r} cannot be deleted. Make a new head."
        )

    def _content(self):
        names = ("classes", "prompts", "logit_scale", "model", *ARRAYS)
        return {name: getattr(self, name) for name in names}

    def __reduce__(self):
        return _unpickle, (self._content(),)

    def __getstate__(self):
        return self._content()

    def __setstate__(self, state):
        # For formats that restore objects from their state, such as skops.
        vars(self).update(vars(TextHead._make(**state)))

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __sklearn_clone__(self):
        return self

    def _arrays(self):
        arrays = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in arrays.items() if array is not None}

    def _fingerprint(self):
        if self._digest is None:
            digest = content_digest(self._header(), self._arrays())
            object.__setattr__(self, "_digest", digest)
        return self._digest

    def _header(self):
        return json.dumps(
            {
                "classes": self.classes,
                "prompts": self.prompts,
                "logit_scale": self.logit_scale,
                "model": self.model,
            }
        )

    def __eq__(self, other):
        if not isinstance(other, TextHead):
            return NotImplemented
        return self is other or self._fingerprint() == other._fingerprint()

    def __hash__(self):
        return hash(self._fingerprint())

    def __repr__(self):
        parts = [
            "no classes" if self.classes is None else count(len(self), "class"),
            count(self.n_features, "feature"),
        ]
        if self.projection is not None:
            parts.append("projection {} x {}".format(*self.projection.shape))
        if self.text_bank is not None:
            parts.append(f"bank of {count(len(self.text_bank), 'text')}")
        if self.model is not None:
            parts.append(self.model)
        return f"TextHead({', '.join(parts)})"

    # Classes

    @property
    def eos_length(self):
        """Mean length L of the classes' EOS tokens; 1.0 without them."""
        if self.eos is None:
            return 1.0
        return float(np.linalg.norm(self.eos, axis=1).mean())

    def __len__(self):
        return 0 if self.classes is None else len(self.classes)

    def __bool__(self):
        # A head with a projection but no classes has length 0, and is not empty.
        return True

    def __iter__(self):
        return iter(self.classes or ())

    def __getitem__(self, names):
        """Restrict the head to some classes, in the order asked for.

        Parameters
        ----------
        names : sequence of str or int
            Members of `classes`. One may come twice, for two labels that share its
            text.

        Returns
        -------
        TextHead

        Raises
        ------
        KeyError
            For a name that the head does not have (names the nearest it has).
        ValueError
            For a head that knows no classes, or no name at all.
        """
        names = check_class_labels(names, "the index of a TextHead", distinct=False)
        if self.classes is None:
            raise ValueError(
                f"{self!r} knows no classes, so none can be picked from it."
            )
        if names == self.classes:
            return self
        position = {name: index for index, name in enumerate(self.classes)}
        unknown = [name for name in names if name not in position]
        if unknown:
            near = get_close_matches(str(unknown[0]), map(str, self.classes), n=3)
            hint = f" Near {unknown[0]!r}: {shown(near)}." if near else ""
            raise _UnknownClassError(
                f"The text head has no class {shown(unknown)}.{hint} It has "
                f"{count(len(self), 'class')}: {shown(self.classes)}."
            )
        rows = [position[name] for name in names]
        content = self._content()
        content["classes"] = names
        if self.prompts is not None:
            content["prompts"] = tuple(self.prompts[row] for row in rows)
        for name in ("eos", "eos_unit", "text_features"):
            if content[name] is not None:
                content[name] = content[name][rows]
        return TextHead._make(**content)

    def relabelled(self, labels) -> "TextHead":
        """Give the classes other labels.

        Parameters
        ----------
        labels : sequence of str or int
            Distinct labels, in the order of `classes`.

        Returns
        -------
        TextHead
            With the same texts; the head itself where nothing changes.

        Examples
        --------
        >>> import numpy as np
        >>> from skbridge import TextHead
        >>> head = TextHead.from_features(["cat", "dog"], np.eye(2))
        >>> head.relabelled([0, 1]).classes
        (0, 1)
        """
        labels = check_class_labels(labels, "labels")
        if labels == self.classes:
            return self
        return TextHead._make(**self._content() | {"classes": labels})

    # Files

    def save(self, path) -> Path:
        """Write the head to one ``.npz`` file, without pickles.

        A file that is replaced stays complete until the new one is: a process that is
        killed, or a full disk, leaves the old file.

        Parameters
        ----------
        path : str or path-like
            ``.npz`` is added unless the name ends in it, as NumPy does.

        Returns
        -------
        pathlib.Path
            The file written.

        Raises
        ------
        ValueError
            When a label comes twice.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from skbridge import TextHead
        >>> head = TextHead.from_features(["cat", "dog"], np.eye(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     head.save(folder + "/pets").name
        'pets.npz'
        """
        if self.classes is not None:
            check_class_labels(self.classes, "classes")
        return write_head(path, self._header(), self._arrays())

    @classmethod
    def load(cls, path) -> "TextHead":
        """Read a head that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            The file, with or without its ``.npz``.

        Returns
        -------
        TextHead

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        ValueError
            When the file is damaged (its digest is checked), was not written by
            `save`, contains values that the constructors refuse, or was written by a
            newer version of the library.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from skbridge import TextHead
        >>> head = TextHead.from_features(["cat", "dog"], np.eye(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     TextHead.load(head.save(folder + "/pets")) == head
        True
        """
        return read_head(path, cls._from_file)

    @classmethod
    def _from_file(cls, *, classes, prompts, logit_scale, model, **arrays):
        return cls._make(
            classes=check_content(classes, prompts, model, arrays),
            prompts=prompts,
            logit_scale=logit_scale,
            model=model,
            **arrays,
        )


def _unpickle(content):
    return TextHead._make(**content)


def check_text_head(head, n_features):
    """Check that a text head is a TextHead, as wide as the embeddings.

    Raises
    ------
    TypeError
        If `head` is neither None nor a TextHead.
    ValueError
        If the widths differ.
    """
    if head is None:
        return
    if not isinstance(head, TextHead):
        raise TypeError(
            "texts must be a TextHead or None here, got "
            f"{type(head).__name__}. Make one with TextHead.from_clip, "
            "TextHead.from_arrays or TextHead.from_features."
        )
    if head.n_features != n_features:
        source = "" if head.model is None else f" (made by {head.model})"
        raise ValueError(
            f"X has {n_features} features, but the text head{source} has "
            f"{head.n_features}. Images and texts must come from the same CLIP "
            "model: embed the images with the model that made the head, or make "
            "the head with the model that embedded the images."
        )
