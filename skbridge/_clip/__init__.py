"""CLIP models, in PyTorch.

==============  ==================================================================
`backend`       `Backend`: what a CLIP model is to the rest of the library
`load`          the known backends, and the models that are in memory
`open_clip`     models of open_clip
`weights`       where open_clip's weights come from
`transformers`  models of Hugging Face transformers
`checkpoint`    checkpoint files, from which no code is read
`hub`           names and files: the hub's cache and the network
`device`        where a model runs, and in which precision
==============  ==================================================================

A further library of models is one module with a subclass of `Backend`, and its name in
`load._BACKENDS`. `_cache` and the layers above may import this package; it imports
`_files` and `_messages`. No module imports torch or a library of models before it is
used, so that importing this package stays quick.
"""
