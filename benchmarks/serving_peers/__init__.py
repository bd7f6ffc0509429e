"""What is measured side by side: one file per peer, with its pins, its flags and its measuring process."""
