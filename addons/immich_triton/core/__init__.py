"""What every product builds on: options, events, the state of a request, files. Knows neither Immich nor Triton."""
