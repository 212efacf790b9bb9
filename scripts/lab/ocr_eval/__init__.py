"""A text-recognition exam: rendered pages with known text, readers that sit it, and their marks."""
