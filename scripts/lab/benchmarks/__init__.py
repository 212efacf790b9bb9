"""Measurements of the gateway and of what it is compared with: always in one run, always interleaved."""
