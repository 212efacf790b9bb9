"""What an export is proved on: images and texts that are made here, the same every time.

Runs on Python 3.11 too: the export environment imports it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw

IMAGES: Final = 32
TEXTS: Final = 64
_SEED: Final = 20221102

_SUBJECTS: Final = (
    "一只猫",
    "两只狗在草地上",
    "海边的日落",
    "生日蛋糕",
    "红色的汽车",
    "雪山",
    "超市购物小票",
    "婴儿的笑脸",
)
_SETTINGS: Final = ("", "的照片", "，夜晚，2023年8月", "，特写")
_LATIN: Final = (
    "a photo of a cat",
    "Café crème in Zürich",
    "IMG_2041.JPG",
    "Tokyo Tower 東京タワー",
    "😀 party",
    "ÀÉÎ",
)
_LONG: Final = "春江潮水连海平，海上明月共潮生。滟滟随波千万里，何处春江无月明！" * 4
"""Zhang Ruoxu, about 700; longer than the context."""


def images() -> list[Image.Image]:
    """Return 32 RGB images of many sizes: noise, gradients, shapes, flat colours."""
    random = np.random.default_rng(_SEED)
    return [_image(index, random) for index in range(IMAGES)]


def _image(index: int, random: np.random.Generator) -> Image.Image:
    width, height = (int(side) for side in random.integers(40, 700, 2))
    if index % 4 == 0:
        return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    if index % 4 == 1:
        across = np.linspace(random.integers(0, 256, 3), random.integers(0, 256, 3), width)
        down = np.linspace(random.integers(0, 256, 3), random.integers(0, 256, 3), height)
        return Image.fromarray(((across[None] + down[:, None]) / 2).astype(np.uint8))
    image = Image.new("RGB", (width, height), _colour(random))
    draw = ImageDraw.Draw(image)
    # Every fourth image has few shapes, so that most of it is flat.
    for number in range(3 if index % 4 == 2 else 40):
        x, y, dx, dy = (float(value) for value in random.random(4))
        box = (x * width, y * height, x * width + dx * width / 2 + 1, y * height + dy * height / 2 + 1)
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=_colour(random))
    return image


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return red, green, blue


def texts() -> list[str]:
    """Return 64 texts: Chinese, Latin, mixed, empty, longer than the context."""
    made = [subject + setting for subject in _SUBJECTS for setting in _SETTINGS]
    made += [*_LATIN, "", " ", "。", _LONG, _LONG[:51], "supercalifragilistic" * 20]
    # The rest: verses of different lengths.
    made += [_LONG[start : start + 3 + start] for start in range(TEXTS - len(made))]
    return made
