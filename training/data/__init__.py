"""JSONL rows to batches, one step per file.

``formats`` (which of the three formats a row is) -> ``split`` (train and evaluation rows) -> ``encoding``
(token ids and labels) -> ``dataset`` -> ``collator`` (padded batches).
"""
