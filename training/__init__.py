"""Data and a base checkpoint in, an adapter out; an adapter in, a merged checkpoint out.

``config``     the settings of ``trimaran train`` and ``trimaran merge`` (command line = YAML = docs)
``run``        ``train``: the stages of one run, from the JSONL rows to the sealed adapter
``data/``      rows -> token ids and labels, one file per step
``methods/``   one folder per fine-tuning method: its settings and how it is put on the model
``trainer``    our settings on ``transformers.Trainer``
``callbacks/`` what the Trainer lacks: progress, metrics, loss curve
``resume``     what a run that was cut off left, and whether it may be continued
``start_adapter``  goes on from an adapter of an earlier run
``ewc/``       continual learning: keeps what an earlier run learned
``adapter``    writes the sealed adapter directory
``merge``      ``merge``: adapter + base -> plain checkpoint, measured against what was trained
"""
