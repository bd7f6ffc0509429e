"""Fine-tuning mixtures of experts: what routers decide, held in balance, limited, counted and drawn.

``recorder`` notes what a model's routers decide during a forward pass and applies ``capacity``; ``balance``
is the load-balance loss, and ``own_balance`` turns the model's off; ``statistics`` counts per layer,
``callback`` and ``plot`` write that down; ``warmup`` holds routers still at first; ``trainer`` puts all of it
into a training step; ``setup`` builds it from the settings in ``config``. ``autocast`` has experts of fp32
weights computed in bf16.
"""
