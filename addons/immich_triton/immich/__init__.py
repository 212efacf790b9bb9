"""Immich's own protocols as a client speaks them: its API, its machine learning, the names of its CLIP models."""
