"""Pages as people photograph them, notice, menu and station: in one script, and in both on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import chain, zip_longest
from typing import Final

from ocr_eval.pages import Page, set_page
from ocr_eval.texts import Script


class Scene(StrEnum):
    """In which script the lines of a page are."""

    SIMPLIFIED = "scene, simplified"
    TRADITIONAL = "scene, traditional"
    BOTH = "scene, lines in turns"
    QUOTED = "scene, some lines in the other"
    ALONE = "scene, one line in the other"


NOTICE: Final = (
    ("通知 Notice No. 12", "通知 Notice No. 12"),
    ("禁烟区内请勿吸烟", "禁煙區內請勿吸煙"),
    ("电梯检修暂停使用", "電梯檢修暫停使用"),
    ("请减速慢行注意行人", "請減速慢行注意行人"),
    ("Room 302 Floor 3", "Room 302 Floor 3"),
    ("办公时间 09:00 - 17:30", "辦公時間 09:00 - 17:30"),
    ("联系电话 010 6552 8847", "聯絡電話 010 6552 8847"),
    ("请保持楼道干净整洁", "請保持樓道乾淨整潔"),
    ("Please keep the door closed", "Please keep the door closed"),
    ("车辆出入请出示证件", "車輛出入請出示證件"),
    ("违者罚款200元", "違者罰款200元"),
    ("物业管理处 2025年6月", "物業管理處 2025年6月"),
    ("会议室请提前预约", "會議室請提前預約"),
    ("垃圾请分类投放", "垃圾請分類投放"),
    ("WiFi: Office 5G Guest", "WiFi: Office 5G Guest"),
    ("感谢您的配合与支持", "感謝您的配合與支持"),
    ("消防通道严禁占用", "消防通道嚴禁佔用"),
    ("宠物须系牵引绳", "寵物須繫牽引繩"),
)
MENU: Final = (
    ("今日特价 Today Special", "今日特價 Today Special"),
    ("红烧牛肉面 Beef Noodles 38.00", "紅燒牛肉麵 Beef Noodles 38.00"),
    ("鱼香肉丝盖饭 26.00", "魚香肉絲蓋飯 26.00"),
    ("蒜蓉炒时蔬 18.00", "蒜蓉炒時蔬 18.00"),
    ("Set A 2 persons 128.00", "Set A 2 persons 128.00"),
    ("鲜榨西瓜汁 12.00", "鮮榨西瓜汁 12.00"),
    ("冰镇绿豆汤 8.00", "冰鎮綠豆湯 8.00"),
    ("豆腐脑配油条 9.50", "豆腐腦配油條 9.50"),
    ("Iced Lemon Tea 15.00", "Iced Lemon Tea 15.00"),
    ("虾仁馄饨 22.00", "蝦仁餛飩 22.00"),
    ("干锅土豆片 24.00", "乾鍋土豆片 24.00"),
    ("米饭每碗2元", "米飯每碗2元"),
    ("小笼汤包 10 pcs", "小籠湯包 10 pcs"),
    ("本店谢绝自带酒水", "本店謝絕自帶酒水"),
    ("Service charge 10% not included", "Service charge 10% not included"),
    ("图片仅供参考", "圖片僅供參考"),
    ("酸辣汤 Hot and Sour Soup", "酸辣湯 Hot and Sour Soup"),
    ("饺子馆营业至晚上十点", "餃子館營業至晚上十點"),
)
STATION: Final = (
    ("人民广场站", "人民廣場站"),
    ("开往机场方向", "開往機場方向"),
    ("Line 2 Platform 4", "Line 2 Platform 4"),
    ("下一班车 Next train 3 min", "下一班車 Next train 3 min"),
    ("请在月台候车线后排队", "請在月臺候車線後排隊"),
    ("换乘二号线请走天桥", "換乘二號線請走天橋"),
    ("To Nanjing South 14:05", "To Nanjing South 14:05"),
    ("首班车 05:30 末班车 23:10", "首班車 05:30 末班車 23:10"),
    ("第8节车厢为弱冷车厢", "第8節車廂為弱冷車廂"),
    ("Exit B 2 West Gate", "Exit B 2 West Gate"),
    ("请勿倚靠车门", "請勿倚靠車門"),
    ("小心站台与列车间的空隙", "小心月臺與列車間的空隙"),
    ("G 1024 on time", "G 1024 on time"),
    ("自动售票机仅收硬币", "自動售票機僅收硬幣"),
    ("卫生间在进站口左侧", "洗手間在進站口左側"),
    ("Tickets 1 to 12 yuan", "Tickets 1 to 12 yuan"),
    ("爱心专座请让给老人", "愛心專座請讓給老人"),
    ("列车即将进站请站稳扶好", "列車即將進站請站穩扶好"),
)
"""Lines in simplified and in traditional characters; those without Chinese are the same in both."""

PLACES: Final = (NOTICE, MENU, STATION)


def scenes() -> Iterator[Page]:
    """Yield notice, menu and station in each way, always the same pages. Raises `FontsMissingError`.

    54 lines in simplified characters and as many in traditional ones, on five pages each; then lines of both in turns,
    and pages of one script with every fifth line in the other, on nine pages each; and six with one such line each.
    """
    for scene in Scene:
        lines = list(_lines(scene))
        for number, start in enumerate(range(0, len(lines), 12)):
            name = f"scene-{scene.name.lower()}-{number}"
            yield set_page(name, scene, lines[start : start + 12])


def _lines(scene: Scene) -> Iterator[tuple[str, Script]]:
    simplified = [(line, Script.SIMPLIFIED) for place in PLACES for line, _ in place]
    traditional = [(line, Script.TRADITIONAL) for place in PLACES for _, line in place]
    if scene is Scene.SIMPLIFIED:
        chosen: Sequence[tuple[str, Script] | None] = simplified
    elif scene is Scene.TRADITIONAL:
        chosen = traditional
    elif scene is Scene.BOTH:
        chosen = list(chain.from_iterable(zip_longest(simplified[::2], traditional[1::2])))
        chosen += list(chain.from_iterable(zip_longest(traditional[::2], simplified[1::2])))
    elif scene is Scene.ALONE:
        # The sixth of twelve: each place in either script.
        starts = range(0, len(simplified), len(NOTICE))
        halves = [(simplified, traditional, start) for start in starts]
        halves += [(traditional, simplified, start) for start in starts]
        chosen = [(two if index == 5 else one)[start + index] for one, two, start in halves for index in range(12)]
    else:
        pairs = (simplified, traditional), (traditional, simplified)
        chosen = [(other if index % 5 == 4 else one)[index] for one, other in pairs for index in range(len(one))]
    for line in chosen:
        if line is not None:
            text, script = line
            yield text, (Script.ENGLISH if text.isascii() else script)
