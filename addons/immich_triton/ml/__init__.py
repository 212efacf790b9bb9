"""Product 1, in front of Immich's machine learning: protocol, routes, tasks, gateway, health, catching up."""
