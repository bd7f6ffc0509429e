"""From a checkpoint to an endpoint: export, the engine inside Triton, the server, the client.

Imports only the checkpoints floor. What runs inside Triton (``engine/``) imports nothing that
needs numpy 2, because the bundled Python backend was built against numpy 1.
"""
