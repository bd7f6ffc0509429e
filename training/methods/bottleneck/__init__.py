"""Bottleneck adapters (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751): ``checkpoints.bottleneck``.

The layers live with the checkpoints, because serving runs them too: they cannot be merged.
"""
