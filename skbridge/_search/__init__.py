"""`FewShotSearchCV`: the parameters of a few-shot classifier, chosen by its shots.

===============  ================================================================
`search_cv`      `FewShotSearchCV` itself: the steps of a search, and prediction
`settings`       the settings to try, checked before anything is fitted
`folds`          index pairs of training and held-out shots, for every kind of `cv`
`fits`           fits on the folds, and component logits of the held-out shots
`scoring`        scores of held-out shots, built in or by a scikit-learn scorer
`evaluate`       scores and log losses of all settings, and the choice of one
`results`        `cv_results_`, and messages about failures and single shots
===============  ================================================================

The search needs only these members of a `FewShotClassifier`:
`blend_parameters`, `component_logits`, `reblend`, `stack_blends` and, where shots can
be left out, `leave_out`.
"""
