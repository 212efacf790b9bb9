"""The OCR models: sources on a package index, one graph for each of detector and recogniser, their proof."""
