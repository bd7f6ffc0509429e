"""The torch engine: every architecture it is shown to serve, and each of its fast paths."""
