"""Trainers, each in a process of its own: ``python -m benchmarks.training_peers.NAME JOB.json``."""
