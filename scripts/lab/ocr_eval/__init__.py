"""A text-recognition exam: rendered pages with known text, readers that sit it, and their marks."""

import sys

from immich_triton.core.paths import PROJECT

# One reader runs the networks with the backend's own engines, which live where Triton's interpreter finds them.
sys.path.append(str(PROJECT / "triton_backends"))
