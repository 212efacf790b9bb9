"""What several of the command-line programs share."""

import sys
from pathlib import Path

# The export scripts check what they made with the pipelines' own code, which lives where Triton's interpreter finds it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "triton_backends"))
