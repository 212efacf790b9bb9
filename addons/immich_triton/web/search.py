"""Addon: answers searches by the text in photos, and ranks ordinary ones by picture and text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from immich_triton.web.account import Account
from immich_triton.web.caller import caller_of
from immich_triton.web.failopen import stock_instead
from immich_triton.web.immich import Refused
from immich_triton.web.pager import Pager
from immich_triton.web.question import parse
from immich_triton.web.ranking import Ranking
from immich_triton.web.respond import as_sent
from immich_triton.web.site import is_search
from immich_triton.web.site_notes import note
from immich_triton.web.text_side import NotUnderstood

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from immich_triton.web.question import Question
    from immich_triton.web.service import Service


class Search:
    """Changes a request only when all that can go wrong has gone well: until then Immich gets it as it came."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def request(self, flow: HTTPFlow) -> None:
        """Answer a search whose body was kept for us, or let it go on to Immich."""
        if flow.request.stream or flow.response or flow.error or not is_search(flow.request):
            return
        account, began = Account(), time.monotonic()
        try:
            await self._search(flow, account)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets what stock Immich answers
            account.outcome = "fault"
            stock_instead("search", error, self._service.measurements)
        seconds = time.monotonic() - began
        self._service.measurements.searched(account, answered=flow.response is not None, seconds=seconds)
        note(flow, account.in_words())

    async def _search(self, flow: HTTPFlow, account: Account) -> None:
        settings, request = self._service.settings, flow.request
        route = request.path.partition("?")[0]
        question = parse(route, request.raw_content or b"", prefix=settings.ocr_prefix, hybrid=settings.hybrid)
        if question is None:
            return
        account.kind, account.page = question.kind, question.page
        # What Immich is asked when we do not answer: of a picture and a text it knows both halves, if not the prefix.
        halves = orjson.dumps(question.smart()) if question.kind == "filtered" else None
        try:
            await self._answer(flow, question, account)
        finally:
            if flow.response is None and halves is not None:
                request.content = halves

    async def _answer(self, flow: HTTPFlow, question: Question, account: Account) -> None:
        request = flow.request
        caller = caller_of(request)
        if caller.by_link:
            account.outcome = "shared_link"  # its visitor may not search smartly: Immich says so
            return
        immich = self._service.immich(request, caller, account.at_immich)
        pager = Pager(self._service.lists, Ranking(self._service, immich, question, account))
        try:
            flow.response = await pager.answer(request)
        except Refused as refused:
            account.outcome = "refused"
            flow.response = as_sent(request, refused.answer)
        except NotUnderstood:
            account.outcome = "not_understood"
