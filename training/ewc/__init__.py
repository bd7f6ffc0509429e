"""Continual learning: elastic weight consolidation, so that a new task does not wash out the last one.

What the last task's loss would feel of a change of each weight (the diagonal of its Fisher information) is
saved after one run; the next run pays for moving those weights (Kirkpatrick et al. 2017,
https://arxiv.org/abs/1612.00796; for many tasks in a row Schwarz et al. 2018,
https://arxiv.org/abs/1805.06370).

``config``   the settings ``ewc:``
``fisher``   rows of the training data -> the diagonal
``store``    ``OUTPUT/ewc``: the diagonal and the weights it holds at, written and read
``penalty``  what a run adds to its gradients
``setup``    which of these a run needs
"""
