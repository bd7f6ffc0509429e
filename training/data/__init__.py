"""Files to batches, one step per file.

``sources`` (folders and data sets of the hub -> files) -> ``files`` (records, whatever kind of file) ->
``formats`` (which format a row is) -> ``encoding`` (token ids and labels) -> ``token_store`` (on disk, once
per run) -> ``split`` (training and evaluation rows) -> ``dataset`` -> ``packing`` where asked for ->
``collator`` (batches). ``prepare`` goes through all of them.
"""
