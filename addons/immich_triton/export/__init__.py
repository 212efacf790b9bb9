"""The model repository: what is written into it, and the sources it is made from."""

import sys

from immich_triton.core.paths import PROJECT

# What was made is checked with the pipelines' own code, which lives where Triton's interpreter finds it.
sys.path.append(str(PROJECT / "triton_backends"))
