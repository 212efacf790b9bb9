"""What the pipeline models share: decoding, calls to other models in the server, per-request answers.

These files run in Triton's own interpreter, possibly in another container: they import nothing of ``immich_triton``.
"""
