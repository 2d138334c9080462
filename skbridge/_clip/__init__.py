"""CLIP models, in PyTorch.

==============  ==================================================================
`backend`       `Backend`: the interface of a CLIP model to the library
`load`          the known backends, and the models that are in memory
`open_clip`     models of open_clip
`weights`       where open_clip's weights come from
`transformers`  models of Hugging Face transformers
`checkpoint`    checkpoint files, from which no code is read
`hub`           names and files: the hub's cache and the network
`device`        where a model runs, and in which precision
==============  ==================================================================

A further library of models is one module with a subclass of `Backend`, and its name in
`load._BACKENDS`. No module imports torch or a library of models before it is
used, so that importing this package stays quick.
"""
