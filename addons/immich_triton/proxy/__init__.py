"""mitmproxy as a hardened server, for any product: wire, guard, limits, drain, authentication, privacy, metrics."""
