"""Embedding and classification of large image collections, in many processes.

A source is divided into shards, each of which is embedded, or classified, by one of
many processes and becomes one file. Ray distributes the shards over processes and
machines, and repeats those whose process dies.

==============  ===================================================================
`_sources`      folders, URLs, archives and tables to shards of images
`_folder`       the folder of a run: what it was made of, and its files
`_workers`      the shards of a run on the actors of Ray, or in this process
`_embed`        `embed_dataset`
`_predict`      `predict_dataset`
`_load`         `load_embeddings` and `iter_embeddings`: what a run has written
==============  ===================================================================

Only users and the command line import this package. Its functions import pyarrow, Ray
and fsspec when they are called.
"""

from skbridge.scale._embed import embed_dataset
from skbridge.scale._load import iter_embeddings, load_embeddings
from skbridge.scale._predict import predict_dataset

__all__ = ["embed_dataset", "iter_embeddings", "load_embeddings", "predict_dataset"]
