"""The text side: names of labels, prompts, and their embeddings.

===============  ================================================================
`head`           `TextHead`: class texts as arrays, immutable
`head_file`      its file format and content digest
`recipe`         `CLIPTexts`, and the values of a `texts` parameter
`names`          class names of labels
`prompts`        prompts of class names
`templates`      the templates that have a name
`encode`         embeddings of prompts, from the cache or a text tower
===============  ================================================================

`_gaussian`, `_class_sums` and the layers above may import this package; it imports
`_cache`, `_clip` and the layers below.
"""
