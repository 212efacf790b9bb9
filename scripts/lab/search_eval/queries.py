"""Sixty queries, and which photos are the right answers: by what the photos are of, not by what any search finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from search_eval.photos import Photo

DEPTH: Final = 10
"""Places that are looked at: about what a person sees before the first scroll on a phone."""


@dataclass(frozen=True)
class Query:
    """A photo is right when its subjects have one of each of the *wanted* groups."""

    text: str
    group: str
    wanted: tuple[tuple[str, ...], ...]

    def right(self, photos: Iterable[Photo]) -> set[int]:
        """Return the numbers of the right photos."""
        return {photo.number for photo in photos if all(photo.subjects & set(names) for names in self.wanted)}


def _same(group: str, *texts: str) -> tuple[Query, ...]:
    return tuple(Query(text, group, ((text,),)) for text in texts)


def _of(group: str, wanted: dict[str, tuple[str, ...]]) -> tuple[Query, ...]:
    return tuple(Query(text, group, (names,)) for text, names in wanted.items())


def _both(wanted: dict[str, tuple[str, str]]) -> tuple[Query, ...]:
    return tuple(Query(text, "several words", tuple((name,) for name in names)) for text, names in wanted.items())


QUERIES: Final = (
    *_same("words", "宫保鸡丁", "麻婆豆腐", "酸辣土豆丝", "纯牛奶", "物美超市", "停水通知", "电梯检修", "家长会"),
    *_same("words", "增值税专用发票", "火车票", "请勿吸烟", "安全出口", "小心地滑", "体检报告"),
    *_of(
        "one character",
        {
            "宫": ("宫保鸡丁", "國立故宮博物院"),
            "鱼": ("鱼香肉丝", "水煮鱼", "清蒸鲈鱼", "酸菜鱼"),
            "税": ("增值税专用发票",),
            "茶": ("普洱茶", "珍珠奶茶"),
            "粥": ("皮蛋瘦肉粥",),
            "糕": ("桂花糕",),
            "药": ("仁和药房", "老百姓大药房", "屈臣氏藥妝"),
            "鸭": ("北京烤鸭",),
        },
    ),
    *_of(
        "part of a word",
        {
            "豆腐": ("麻婆豆腐", "臭豆腐", "豆腐干"),
            "排骨": ("糖醋排骨",),
            "牛奶": ("纯牛奶",),
            "面包": ("全麦面包",),
            "垃圾": ("垃圾分类", "垃圾袋"),
            "书店": ("新华书店", "誠品書店"),
            "血压": ("血压",),
        },
    ),
    *_of(
        "other script",
        {
            "台北车站": ("臺北車站",),
            "牛肉面": ("牛肉麵",),
            "卤肉饭": ("滷肉飯",),
            "电子发票": ("電子發票",),
            "禁止饮食": ("禁止飲食",),
            "盐酥鸡": ("鹽酥雞",),
            "紧急出口": ("緊急出口",),
            "凤梨酥": ("鳳梨酥",),
            "宮保雞丁": ("宫保鸡丁",),
            "北京烤鴨": ("北京烤鸭",),
        },
    ),
    *_both(
        {
            "宫保鸡丁 普洱茶": ("宫保鸡丁", "普洱茶"),
            "纯牛奶 鸡蛋": ("纯牛奶", "鸡蛋"),
            "橙汁 物美超市": ("物美超市", "橙汁"),
            "永辉超市 纯牛奶": ("永辉超市", "纯牛奶"),
            "tomato soup tiramisu": ("Tomato Soup", "Tiramisu"),
            "bananas batteries": ("Bananas", "Batteries"),
            "口水鸡 担担面": ("口水鸡", "担担面"),
            "电子发票 诚品": ("電子發票", "誠品書店"),
        }
    ),
    *_of(
        "English",
        {
            "no smoking": ("No Smoking",),
            "exit": ("EXIT", "Emergency Exit"),
            "boarding pass": ("BOARDING PASS",),
            "caesar salad": ("Caesar Salad",),
            "whole milk": ("Whole Milk",),
            "restroom": ("Restroom",),
            "ticket office": ("Ticket Office",),
            "passport": ("PASSPORT",),
        },
    ),
    *_of(
        "mixed",
        {
            "请勿吸烟 No Smoking": ("No Smoking",),
            "游客中心 visitor": ("Visitor Center",),
            "洗手间 restroom": ("Restroom",),
            "登机牌 boarding": ("登机牌",),
            "护照 passport": ("护照",),
        },
    ),
)


def recall(places: list[int], right: set[int]) -> float:
    """Return how many of the right photos stand among the first `DEPTH`, of as many as can."""
    return len(right & set(places[:DEPTH])) / min(len(right), DEPTH)


def reciprocal_rank(places: list[int], right: set[int]) -> float:
    """Return 1 / the place of the first right photo, 0 when there is none."""
    return next((1 / place for place, number in enumerate(places, start=1) if number in right), 0.0)
