"""Runs in the export environment: our tokens against cn_clip's, on generated strings.

``clip_tokens.py COUNT SEED``; prints JSON: how many strings, and the first that differ.
"""

from __future__ import annotations

import json
import random
import sys
import unicodedata
from pathlib import Path
from typing import Final

import cn_clip.clip

from immich_pipelines.clip_tokenizer import Tokenizer

ALPHABETS: Final = {
    "chinese": "".join(map(chr, range(0x4E00, 0xA000))),
    "latin": "abcdefghijklmnopqrstuvwxyz     ",
    "accents": "ÀÉÎõüñçßøåŞİıΣσςΑΩѐйﬁǅ\u0301\u0300\u0345",
    "marks": "".join(mark for mark in map(chr, range(0x20000)) if unicodedata.combining(mark)) + "\u034f",
    "emoji": "😀👨\u200d👩🇨🇳❤️🧑🏽",
    "control": "".join(map(chr, range(32))) + "\x7f\x85\xa0\u2028\u2029\u200b\ufeff\ufffd\u3000\u1680\u180e",
    "digits": "0123456789.,:;%$^`~",
    "punctuation": "，。！？「」…—·#[]",
    "surrogates": "\ud800\udfff\udc00",
    "right to left": "אבגדהابتثج\u202e\u200f",
    "other scripts": "かなカナｶﾅ１２ＡＢ가나다각\uf900\U0002f800\U00020000\U0002ebf0\U00030000ไทย",
    "special tokens": "[CLS][SEP][UNK][PAD]##",
}


def generate(source: random.Random) -> str:
    """Return a string: of mixed alphabets, of any code points, or one long word."""
    length = source.choice((0, 1, 2, 3, 5, 8, 12, 20, 30, 60, 120))
    kind = source.random()
    if kind < 0.1:
        return "".join(chr(source.randrange(0x110000)) for _ in range(length))
    if kind < 0.2:
        return source.choice("abcxyz猫") * length + source.choice(ALPHABETS["punctuation"])
    alphabets = source.sample(list(ALPHABETS.values()), source.randrange(1, 4))
    return "".join(source.choice(source.choice(alphabets)) for _ in range(length))


def main() -> None:
    """Run the program."""
    source = random.Random(int(sys.argv[2]))  # noqa: S311 - nothing secret
    tokenizer = Tokenizer(Path(cn_clip.clip.__file__).parent / "vocab.txt")
    count, different = int(sys.argv[1]), []
    for _ in range(0, count, 1000):
        texts = [generate(source) for _ in range(1000)]
        for text, theirs in zip(texts, cn_clip.clip.tokenize(texts).numpy(), strict=True):
            if (tokenizer.encode(text) != theirs).any():
                different.append(ascii(text))
    sys.stdout.write(json.dumps({"count": count, "different": different[:10]}))


if __name__ == "__main__":
    main()
