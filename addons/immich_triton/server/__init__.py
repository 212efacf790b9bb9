"""The embedded Triton and the processes around it: install, preflight, supervisor, repository watch."""
