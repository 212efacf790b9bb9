"""The Chinese-CLIP encoders: checkpoints, the PyTorch environment that exports them, parity with the original."""
