"""The slot engine: batching, sampling, limits; on a tiny Llama run by torch."""
