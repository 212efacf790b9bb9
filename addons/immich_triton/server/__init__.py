"""The embedded Triton and the processes around it: install, preflight, supervisor, repository watch."""

# By itself, so that the pipelines' own code is found whichever module of this room is imported first.
import immich_triton.export as _export  # noqa: F401
