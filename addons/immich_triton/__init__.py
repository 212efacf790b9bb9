"""immich-triton: answers Immich machine-learning requests from NVIDIA Triton."""

from typing import Final

__version__: Final = "0.1.0"
"""The one place of the version: pyproject.toml reads it, and so does what runs without an installed package."""
