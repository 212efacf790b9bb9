"""Texts to CLIP embeddings: tokens, then one call per encoder for what was not asked before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from immich_pipelines.clip_encoders import Call, Encoder, Encoders, embed
from immich_pipelines.clip_tokenizer import Tokenizer
from immich_pipelines.errors import BadInput

Embedding = npt.NDArray[np.float32]
Key = tuple[Encoder, bytes]
"""The encoder with its fingerprint, and the tokens: texts that differ in case or accents only share an entry."""


@dataclass(frozen=True)
class TextJob:
    """A text as UTF-8, and the encoder that the request names."""

    text: bytes
    encoder: str


@dataclass(frozen=True)
class TextEmbedding:
    """An embedding float32 [D] of length 1, and the fingerprint of the weights that computed it."""

    embedding: Embedding
    fingerprint: int


class LruCache:
    """The last *size* embeddings. Only successes: a failed request must be tried again, not remembered."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Key, Embedding] = OrderedDict()

    def get(self, key: Key) -> Embedding | None:
        """Return the embedding of *key* and count it as used now."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Key, embedding: Embedding) -> None:
        """Remember *embedding*; the one unused for the longest time makes room."""
        self._entries[key] = embedding
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class ClipText:
    """The pipeline: *call* runs an encoder, *cache_size* embeddings are remembered (0: none)."""

    def __init__(self, encoders: Encoders, call: Call, cache_size: int) -> None:
        self._encoders = encoders
        self._call = call
        self._cache = LruCache(cache_size)
        self._tokenizers: dict[Path, tuple[int, Tokenizer]] = {}

    def run(self, jobs: Sequence[TextJob]) -> list[TextEmbedding | Exception]:
        """Answer *jobs* in their order; what fails (`BadInput`, `EncoderError`) fails alone."""
        keys = [self._key(job) for job in jobs]
        answers: dict[Key, Embedding | Exception] = {}
        missing: dict[Encoder, list[Key]] = {}
        for key in keys:
            if isinstance(key, Exception) or key in answers:
                continue
            cached = self._cache.get(key)
            if cached is None:
                missing.setdefault(key[0], []).append(key)
            # Holds the place of a missing one, so that a text asked for twice in a batch is computed once.
            answers[key] = RuntimeError("no encoder was asked") if cached is None else cached
        for encoder, group in missing.items():
            answers.update(zip(group, self._embed(encoder, group), strict=True))
        return [key if isinstance(key, Exception) else _answer(key, answers[key]) for key in keys]

    def _key(self, job: TextJob) -> Key | Exception:
        try:
            encoder = self._encoders.find(job.encoder)
            return encoder, self._tokenizer(encoder).encode(_decode(job.text)).tobytes()
        except Exception as error:  # noqa: BLE001 - becomes the answer of this request alone
            return error

    def _tokenizer(self, encoder: Encoder) -> Tokenizer:
        """Return the tokenizer of the vocabulary that the export put beside the encoder."""
        fingerprint, tokenizer = self._tokenizers.get(encoder.folder, (None, None))
        if tokenizer is None or fingerprint != encoder.fingerprint:
            tokenizer = Tokenizer(encoder.folder / "vocab.txt")
            self._tokenizers[encoder.folder] = (encoder.fingerprint, tokenizer)
        return tokenizer

    def _embed(self, encoder: Encoder, group: Sequence[Key]) -> Sequence[Embedding | Exception]:
        tokens = np.stack([np.frombuffer(key[1], np.int64) for key in group])
        try:
            rows = embed(self._call, encoder, "TOKENS", tokens)
        except Exception as error:  # noqa: BLE001 - becomes the answer of every request of the group
            return [error] * len(group)
        for key, row in zip(group, rows, strict=True):
            if not isinstance(row, Exception):
                self._cache.put(key, row)
        return rows


def _answer(key: Key, embedding: Embedding | Exception) -> TextEmbedding | Exception:
    # Also one that was remembered: the encoder of the key is the one that computed it.
    return embedding if isinstance(embedding, Exception) else TextEmbedding(embedding, key[0].fingerprint)


def _decode(text: bytes) -> str:
    try:
        # surrogatepass: half an emoji, as JavaScript may send it, is an unknown word and no reason to refuse the query.
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise BadInput(f"the text is not valid UTF-8: {error.reason} at byte {error.start}") from None
