"""Measurements of the gateway and of what it is compared with: always in one run, always interleaved."""

import sys

from immich_triton.core.paths import PROJECT

# Nets alone are run by the backend's own engines, which live where Triton's interpreter finds them.
sys.path.append(str(PROJECT / "triton_backends"))
