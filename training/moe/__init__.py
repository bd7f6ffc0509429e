"""Fine-tuning mixtures of experts: what routers decide, held in balance, limited, counted and drawn.

``routers`` finds a model's routers by their type; ``recorder`` notes their decisions during a forward pass
and applies ``capacity``; ``balance`` is the load-balance loss; ``statistics`` counts per layer, and
``trainer`` puts all of it into a training step. Settings are ``config.MoeSettings``.
"""
