"""Data and a base checkpoint in, an adapter out; an adapter in, a merged checkpoint out.

``config``     the settings of ``trimaran train`` and ``trimaran merge`` (command line = YAML = docs)
``run``        ``train``: the stages of one run, from the JSONL rows to the sealed adapter
``data/``      rows -> token ids and labels, one file per step
``methods/``   one folder per fine-tuning method: its settings and how it is put on the model
``fused/``     layers as functions that keep less for the backward pass; ``chunked_loss`` is the head's
``ewc/``       what an earlier run learned, kept; ``start_adapter`` goes on from its adapter
``moe/``       routers and experts of mixtures
``ranks``      the processes of a run with torchrun; ``gathering`` puts sharded weights together
``guard``      ends a run before a step with what is no number; ``retry`` halves a batch that does not fit
``trainer``    our settings on ``transformers.Trainer``
``callbacks/`` what the Trainer lacks: progress, metrics, loss curve
``resume``     what a run that was cut off left, and whether it may be continued
``adapter``    writes the sealed adapter directory
``merge``      ``merge``: adapter + base -> plain checkpoint, measured against what was trained
"""
