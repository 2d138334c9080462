"""The bridged classifiers, and the base class of every few-shot classifier.

===============  ================================================================
`base`           `FewShotClassifier`: texts, shots, prediction in blocks
`labels`         checks that labels and class texts belong together
`blend`          the weighted sum of z1, z2 and z3
`bridged`        base class of the two bridged classifiers
`semobridge`     `SeMoBridgeClassifier`, the paper's method
`tokens`         its bridged prototypes, from sums of shots
`gda`            `BridgedGDAClassifier`, the recommended classifier
`unlabelled`     images without a label in its sums
`conformal`      sets of labels with a bound on the error rate
===============  ================================================================

Fitting and prediction use NumPy; training imports `_training` when it starts. The
package may be imported by `_search`, `baselines`, `inspection` and the layers above.
"""
