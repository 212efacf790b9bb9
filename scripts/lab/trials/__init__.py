"""A whole installation to break and to wear out: the supervisor, a stock ML that counts, clients, Immich's API."""
