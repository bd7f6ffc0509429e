"""Fine-tuning methods: one folder each, found by ``registry``.

A method's folder holds ``config.py`` (its settings, a field of ``TrainConfig`` with the folder's name) and
``apply.py`` with ``apply(model, config) -> PeftModel``.
"""
