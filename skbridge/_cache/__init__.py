"""Embeddings on disk, so that no image and no text is embedded twice.

================  ======================================================
``keys``          content keys of images and texts, spaces of embeddings
``store``         the protocol of a store, and its limits
``sqlite``        the store in use: one SQLite file per folder
``statements``    its tables and SQL
``folder``        the folder that ``cache_dir`` means, and the store in it
``models``        metadata of a model, known without loading it
``planner``       the images that are still to be embedded
================  ======================================================

Another store is one more module that implements ``store.Store``, and a line in
``folder.open_cache``.
"""
