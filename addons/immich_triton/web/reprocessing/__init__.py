"""One photo again: what may be ordered, how it gets into a queue of Immich, and how it is seen what came of it."""
