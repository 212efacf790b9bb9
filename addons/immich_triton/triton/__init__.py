"""The client of Triton: calls, transport, breaker, admission. Knows pipelines, and nothing of Immich."""
