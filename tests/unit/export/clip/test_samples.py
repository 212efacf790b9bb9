"""What an export is proved on is the same every time, and of all kinds."""

from __future__ import annotations

from immich_triton.export.clip import samples
from immich_triton.export.clip.models import CONTEXT_LENGTH


def test_images_are_the_same_every_time_and_of_many_sizes() -> None:
    first, second = samples.images(), samples.images()
    assert [image.tobytes() for image in first] == [image.tobytes() for image in second]
    assert len(first) == samples.IMAGES
    assert {image.mode for image in first} == {"RGB"}
    assert len({image.size for image in first}) == len(first)
    assert any(width > height for width, height in (image.size for image in first))
    assert any(width < height for width, height in (image.size for image in first))


def test_texts_are_chinese_latin_mixed_empty_and_too_long() -> None:
    texts = samples.texts()
    assert texts == samples.texts()
    assert len(texts) == samples.TEXTS
    assert "" in texts
    assert any(text.isascii() and text.strip() for text in texts)
    assert any(not text.isascii() and any(letter.isascii() for letter in text) for text in texts)
    assert any(len(text) > CONTEXT_LENGTH and not text.isascii() for text in texts)
    assert any("\N{GRINNING FACE}" in text for text in texts)
