"""What the addons of mt-photos-ai's API share: machine learning's, and which model answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast, override

from immich_triton.core.errors import ProtocolError
from immich_triton.ml import service as machine_learning
from immich_triton.ml.route_file import RouteError
from immich_triton.ml.route_watch import read_table
from immich_triton.mt_photos import models
from immich_triton.mt_photos.settings import Settings

if TYPE_CHECKING:
    from immich_triton.ml.route_file import Route
    from immich_triton.ml.settings import Settings as Common

logger = logging.getLogger(__name__)


class Service(machine_learning.Service):
    """State of one loaded script: routes, ledger, the client of Triton with its breakers, as the gateway of Immich."""

    @property
    @override
    def settings(self) -> Settings:
        """The settings. Raises `ProtocolError` (503) while there are none."""
        return cast("Settings", super().settings)

    @staticmethod
    @override
    def check(settings: Common) -> None:
        """Raise `RouteError` or `LedgerError` when nothing can work with *settings*."""
        machine_learning.Service.check(settings)
        models.check(read_table(settings), cast("Settings", settings))

    @override
    def configure(self, settings: Common) -> None:
        """Take new settings. Raises `RouteError` or `LedgerError`, and then changes nothing."""
        models.check(read_table(settings), cast("Settings", settings))
        super().configure(settings)
        for line in models.describe(self.table, self.settings):
            logger.info("MT-Photos gets %s", line)

    def route(self, task: str) -> Route:
        """Return the route that answers *task*. Raises `ProtocolError` (503) where there is none, or it is open which.

        Routes change while this runs: what the check at the start saw need not be so any more.
        """
        try:
            return models.chosen(self.table, task, self.settings)
        except RouteError as error:
            raise ProtocolError(503, str(error)) from error
