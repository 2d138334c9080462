"""Shots held out of the training data, to choose settings, steps and temperatures.

===============  ================================================================
`shots`          `Shots`: labelled embeddings with weights
`folds`          folds of shots
`selection`      choice among settings that few shots cannot tell apart
`temperature`    softmax temperatures of least log loss on held-out scores
===============  ================================================================

NumPy only. `_training`, `_classifiers`, `_search` and the layers above may import this
package; it imports `_rows`.
"""
