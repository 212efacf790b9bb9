"""immich-triton: answers Immich machine-learning requests from NVIDIA Triton."""
