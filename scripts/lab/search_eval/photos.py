"""The texts of 200 photos, as lines that were read from them, and what each photo is of. The same every time.

Receipts, menus, signs, notices, documents and screenshots; simplified, traditional, English and mixed. No picture is
rendered: how well text is read is measured by eval_ocr.py, here only how it is found. Some lines are read wrongly, as
recognisers do: a character by its look-alike, a gap within a word, digits and letters in full width. In a few photos
Immich has lost its own search text, as "Refresh thumbnails" does.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

PHOTOS: Final = 200

DISHES: Final = (
    *(
        "宫保鸡丁",
        "鱼香肉丝",
        "麻婆豆腐",
        "回锅肉",
        "水煮鱼",
        "酸辣土豆丝",
        "糖醋排骨",
        "红烧肉",
        "清蒸鲈鱼",
        "北京烤鸭",
    ),
    *(
        "小笼包",
        "酸菜鱼",
        "口水鸡",
        "蒜蓉西兰花",
        "干煸四季豆",
        "番茄炒蛋",
        "扬州炒饭",
        "担担面",
        "兰州拉面",
        "夫妻肺片",
    ),
    *("地三鲜", "葱油拌面", "白切鸡", "叉烧饭", "皮蛋瘦肉粥", "锅包肉", "羊肉串", "桂花糕", "酸梅汤", "普洱茶"),
)
TRADITIONAL_DISHES: Final = (
    *(
        "滷肉飯",
        "牛肉麵",
        "蚵仔煎",
        "鹽酥雞",
        "珍珠奶茶",
        "臭豆腐",
        "鳳梨酥",
        "貢丸湯",
        "蔥油餅",
        "刈包",
        "豬腳飯",
        "芋圓",
    ),
)
ENGLISH_DISHES: Final = (
    *("Margherita Pizza", "Caesar Salad", "Mushroom Risotto", "Grilled Salmon", "Beef Burger", "Fish and Chips"),
    *("Tomato Soup", "Tiramisu", "Iced Latte", "Lemonade", "Club Sandwich", "Apple Pie"),
)
GOODS: Final = (
    *(
        "纯牛奶",
        "全麦面包",
        "红富士苹果",
        "洗衣液",
        "抽纸",
        "牙膏",
        "东北大米",
        "花生油",
        "鸡蛋",
        "矿泉水",
        "酱油",
        "卫生纸",
    ),
    *("薯片", "速冻水饺", "洗发水", "电池", "橙汁", "垃圾袋", "香蕉", "豆腐干"),
)
SHOPS: Final = ("华联超市", "永辉超市", "便民商店", "新华书店", "仁和药房", "宜家家居", "物美超市", "老百姓大药房")
TAIWAN_SHOPS: Final = ("全聯福利中心", "誠品書店", "屈臣氏藥妝")
ENGLISH_GOODS: Final = (
    "Whole Milk",
    "Sourdough Bread",
    "Bananas",
    "Cheddar Cheese",
    "Orange Juice",
    "Dish Soap",
    "Batteries",
)

SIGNS: Final = (
    ("请勿吸烟", "No Smoking"), ("小心地滑", "Caution Wet Floor"), ("安全出口", "EXIT"), ("禁止停车", "No Parking"),
    ("洗手间", "Restroom"), ("请勿拍照", "No Photography"), ("闲人免进", "Staff Only"), ("游客中心", "Visitor Center"),
    ("售票处", "Ticket Office"), ("紧急集合点", "Assembly Point"), ("请节约用水", "Save Water"), ("电梯", "Elevator"),
    ("母婴室", "Nursing Room"), ("行李寄存", "Left Luggage"), ("注意脚下", "Watch Your Step"),
)  # fmt: skip
TRADITIONAL_SIGNS: Final = (
    ("臺北車站", "Taipei Main Station"), ("請勿跨越黃線", "Do Not Cross"), ("博愛座", "Priority Seat"),
    ("轉乘捷運", "Transfer to MRT"), ("國立故宮博物院", "National Palace Museum"), ("遊客服務中心", "Tourist Service"),
    ("禁止飲食", "No Food or Drink"), ("緊急出口", "Emergency Exit"), ("歡迎光臨", "Welcome"),
    ("電梯維修中", "Out of Order"),
)  # fmt: skip
NOTICES: Final = (
    ("停水通知", "因管道检修，明日八时至十八时暂停供水"), ("停电通知", "因线路改造，周六全天停止供电"),
    ("电梯检修", "一号电梯年度检验，暂停使用"), ("物业费缴纳", "请于月底前到物业管理处缴纳"),
    ("家长会", "本周五下午三点在教室召开"), ("疫苗接种", "请携带身份证到社区卫生站"),
    ("垃圾分类", "厨余垃圾请投绿色桶"), ("招聘启事", "招聘服务员两名，包吃住"),
)  # fmt: skip
DOCUMENTS: Final = (
    ("增值税专用发票", ("购买方名称", "价税合计", "纳税人识别号")), ("火车票", ("二等座", "检票口", "限乘当日当次车")),
    ("登机牌", ("BOARDING PASS", "登机口", "座位号")), ("租赁合同", ("甲方", "乙方", "租金每月支付")),
    ("体检报告", ("血压", "血常规", "建议复查")), ("护照", ("PASSPORT", "签发机关", "有效期至")),
    ("快递单", ("收件人", "运单号", "已验视")), ("电费账单", ("本期用电量", "应缴金额", "户号")),
)  # fmt: skip
CHATTER: Final = (
    "明天停水吗？我们家好像没有接到通知", "晚上吃宫保鸡丁还是鱼香肉丝？", "发票我放在桌上了，记得报销",
    "昨天去超市买了牛奶和面包", "在车站等你，出口那边", "这个电梯什么时候能修好", "记得带护照和登机牌",
    "请大家不要在群里发广告", "孩子的家长会改到下周了", "今天的合同已经寄出", "no smoking in my car please",
    "See you at the exit near the ticket office", "I had tomato soup and a sandwich", "故宫人太多了下次再去",
    "周末去台北玩三天", "想喝珍珠奶茶", "物业说月底前要交费", "体检报告出来了，血压有点高",
    "快递到了没有，运单号发我", "牛肉面涨价了",
)  # fmt: skip

LOOK_ALIKES: Final = dict(zip("鸡丁腐票停烟合超麵雞口通ol", "鸿T腑栗亭炯台趄麴鶏囗诵01", strict=True))
"""What a recogniser takes for another at times."""


@dataclass(frozen=True)
class Photo:
    """*subjects* are what somebody who looks for this photo would name: of a menu its dishes, of a sign its words.

    *age* in days; *lost*: Immich's own search text is empty.
    """

    number: int
    kind: str
    lines: tuple[str, ...]
    subjects: frozenset[str]
    age: int
    lost: bool


def photos() -> list[Photo]:
    """Return all of them."""
    chance = random.Random(2026)  # noqa: S311 - the same set each time
    made = [*_menus(chance), *_receipts(chance), *_signs(chance), *_notices(chance), *_documents(chance)]
    made += [("chat", (text, f"{chance.randint(8, 22)}:{chance.randint(10, 59)}"), ()) for text in CHATTER]
    assert len(made) == PHOTOS, len(made)  # noqa: S101 - the set is fixed
    ages = chance.sample(range(1, 2000), len(made))
    return [
        Photo(number, kind, _read(lines, number), frozenset(subjects), age, lost=number % 20 == 7)
        for number, ((kind, lines, subjects), age) in enumerate(zip(made, ages, strict=True))
    ]


_Made = tuple[str, Sequence[str], Sequence[str]]


def _menus(chance: random.Random) -> Iterator[_Made]:
    for names, title, count, size in (
        (DISHES, "川味小馆 菜单", 26, 7),
        (TRADITIONAL_DISHES, "阿嬤小吃 菜單", 8, 5),
        (ENGLISH_DISHES, "The Corner Cafe Menu", 10, 5),
    ):
        for number in range(count):
            dishes = chance.sample(names, size)
            currency = {DISHES: "元", TRADITIONAL_DISHES: "圓"}.get(names, "")
            prices = [f"{chance.randint(9, 98)}{currency}" for _ in dishes]
            yield (
                "menu",
                [title, *(f"{d} {p}" for d, p in zip(dishes, prices, strict=True))],
                [*dishes, f"menu{number}"],
            )


def _receipts(chance: random.Random) -> Iterator[_Made]:
    for _ in range(40):
        goods, shop = chance.sample(GOODS, 4), chance.choice(SHOPS)
        date = f"2025-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        total = f"{chance.randint(20, 400)}.{chance.randint(10, 99)}"
        items = [f"{name} x{chance.randint(1, 3)} {chance.randint(2, 60)}.{chance.randint(10, 99)}" for name in goods]
        yield (
            "receipt",
            [shop, "购物小票", date, *items, f"合计 ¥{total}", "谢谢惠顾", "如需发票请当日开具"],
            [*goods, shop, total],
        )
    for _ in range(8):
        shop, total = chance.choice(TAIWAN_SHOPS), f"{chance.randint(100, 999)}"
        yield "receipt", [shop, "電子發票證明聯", f"總計 {total}", "隨機碼 4821"], [shop, "電子發票"]
    for _ in range(12):
        goods = chance.sample(ENGLISH_GOODS, 3)
        total = f"{chance.randint(5, 90)}.{chance.randint(10, 99)}"
        items = [f"{name} {chance.randint(1, 20)}.{chance.randint(10, 99)}" for name in goods]
        yield "receipt", ["Green Grocer", "RECEIPT", *items, f"TOTAL ${total}", "Thank you"], [*goods, total]


def _signs(chance: random.Random) -> Iterator[_Made]:
    for pair in SIGNS:
        yield "sign", pair, pair
        yield "sign", pair[:1], pair[:1]
    for pair in TRADITIONAL_SIGNS:
        yield "sign", pair, pair
    for _ in range(2):
        for text, english in chance.sample(SIGNS, 5):
            yield "sign", [english.upper(), text], [text, english]


def _notices(chance: random.Random) -> Iterator[_Made]:
    for title, text in NOTICES:
        for _ in range(2):
            yield (
                "notice",
                [title, "尊敬的各位业主、家长：", text, f"{chance.randint(1, 12)}月{chance.randint(1, 28)}日"],
                [title],
            )


def _documents(chance: random.Random) -> Iterator[_Made]:
    for title, lines in DOCUMENTS:
        for _ in range(1 + (title in ("增值税专用发票", "火车票"))):
            number = f"{chance.randint(10_000_000, 99_999_999)}"
            yield "document", [title, *lines, f"No.{number}"], [title, *lines, number]


def _read(lines: Sequence[str], number: int) -> tuple[str, ...]:
    """Return the lines as a recogniser gives them: every ninth photo has one that is misread, a gap, or full width."""
    read = list(lines)
    at = number % len(read)
    if number % 9 == 4:
        for right, wrong in LOOK_ALIKES.items():
            if right in read[at]:
                read[at] = read[at].replace(right, wrong, 1)
                break
    elif number % 9 == 6 and len(read[0]) > 2:
        read[0] = f"{read[0][0]} {read[0][1:]}"
    elif number % 9 == 8:
        read[at] = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in read[at])
        assert unicodedata.normalize("NFKC", read[at])  # noqa: S101
    return tuple(read)
