"""The logic behind ``triton_backends/onnxruntime/model.py``, importable and testable without Triton.

`settings` reads a model's config, `complete` fills in what a config leaves out, `engines` runs ONNX files, `batching`
joins and splits the requests of a dynamic batch.
"""
