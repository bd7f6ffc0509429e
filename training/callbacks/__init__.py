"""Callbacks for ``transformers.Trainer``, one per file."""
