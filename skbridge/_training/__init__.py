"""Training on the shots: the bridge of SeMoBridge-T.

==================  =============================================================
`bridge`            `train_bridge`: W+ and the class-specific bias
`objective`         the losses of SeMoBridge-T
`basis`             coordinates in which these are computed
`solvers`           AdamW, L-BFGS and their schedules
`early_stopping`    the number of steps, chosen by cross-validation on the shots
`tensors`           conversion of arrays to tensors
==================  =============================================================

Arguments and results are arrays; PyTorch is used inside only, and is not imported
before training starts. `_classifiers` and the layers above may import this package; it
imports `_held_out`, `_bridge`, `_class_sums` and `_rows`.
"""
