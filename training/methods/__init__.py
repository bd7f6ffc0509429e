"""Fine-tuning methods: one folder each, found by ``registry``.

A method's folder holds ``config.py`` (its settings, a field of ``TrainConfig`` with the folder's name, and
its ``TRAITS``) and ``apply.py`` with ``apply(model, settings)``, which returns the model to train.
"""
