"""Product 3: the HTTP API of mt-photos-ai, by which MT-Photos asks for OCR, CLIP and faces, over the same Triton."""
