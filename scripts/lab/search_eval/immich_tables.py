"""Immich's tables for the text of photos, and how it fills and searches them, as recorded from 2.7.5 and 3.1.0.

Only what a search by text touches: ids and owners in ``asset``, lines in ``asset_ocr``, pairs in ``ocr_search``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

SCHEMA: Final = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE FUNCTION f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN unaccent('unaccent'::regdictionary, $1);
CREATE TABLE asset (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "ownerId" uuid NOT NULL,
    "fileCreatedAt" timestamptz NOT NULL DEFAULT now(),
    "originalPath" text NOT NULL DEFAULT ''
);
CREATE TABLE asset_ocr (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "assetId" uuid NOT NULL REFERENCES asset ON DELETE CASCADE,
    x1 real NOT NULL DEFAULT 0, y1 real NOT NULL DEFAULT 0, x2 real NOT NULL DEFAULT 1, y2 real NOT NULL DEFAULT 0,
    x3 real NOT NULL DEFAULT 1, y3 real NOT NULL DEFAULT 1, x4 real NOT NULL DEFAULT 0, y4 real NOT NULL DEFAULT 1,
    "boxScore" real NOT NULL DEFAULT 1, "textScore" real NOT NULL DEFAULT 1,
    text text NOT NULL,
    "isVisible" boolean NOT NULL DEFAULT true
);
CREATE INDEX "asset_ocr_assetId_idx" ON asset_ocr ("assetId");
CREATE TABLE ocr_search ("assetId" uuid PRIMARY KEY REFERENCES asset ON DELETE CASCADE, text text NOT NULL);
CREATE INDEX idx_ocr_search_text ON ocr_search USING gin (f_unaccent(text) gin_trgm_ops);
"""

SEARCH: Final = """
SELECT "assetId"::text AS photo FROM ocr_search JOIN asset ON asset.id = "assetId"
WHERE "ownerId" = $1 AND f_unaccent(ocr_search.text) %>> f_unaccent($2)
ORDER BY "fileCreatedAt" DESC, "assetId"
"""
"""Stock's search by text: strict word similarity of 0.5 or more to the query, cut like the text; the newest first."""

_IDEOGRAPHS: Final = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN: Final = re.compile(rf"[{_IDEOGRAPHS}]+|[^\s{_IDEOGRAPHS}]+")
_IDEOGRAPH: Final = re.compile(f"[{_IDEOGRAPHS}]")


def tokens(text: str) -> list[str]:
    """Cut a text as Immich does: overlapping pairs of ideographs, one alone stays alone, all else at blanks."""
    cut: list[str] = []
    for run in _RUN.findall(text):
        if _IDEOGRAPH.match(run) and len(run) > 1:
            cut += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            cut.append(run)
    return cut


def searched(lines: Iterable[str]) -> str:
    """Return what stands in ``ocr_search`` for a photo with these lines."""
    return " ".join(token for line in lines for token in tokens(line))
