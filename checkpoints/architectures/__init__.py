"""Models that transformers lacks, each in a folder of its own, as native transformers classes.

deepseek      the first DeepSeek-MoE (``model_type: deepseek``, 16B; arXiv:2401.06066)
registration  makes them known to ``AutoConfig`` and ``AutoModelForCausalLM``

``import checkpoints`` is enough: nothing here is imported before a config names one of these models.
"""
