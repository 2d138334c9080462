"""Learning from the shots: the bridge of SeMoBridge-T, and the Gaussian head's map.

==================  =============================================================
`bridge`            `train_bridge`: W+ and the class-specific bias
`metric`            `train_metric`: a linear map after the Gaussian head's metric
`objective`         the losses of SeMoBridge-T
`solvers`           AdamW, L-BFGS and their schedules
`early_stopping`    the number of steps, chosen by cross-validation on the shots
`tensors`           conversion of arrays to tensors
==================  =============================================================

Arrays go in and come out; PyTorch stays inside, and is first imported here. Only
`skbridge._classifiers` and the benchmarks import this package. It imports
`skbridge._held_out`, `_bridge`, `_class_sums`, `_gaussian` and `_rows`.
"""
