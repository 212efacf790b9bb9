"""A request's events go straight to the hooks that there are. A private part of mitmproxy again, as in `wire`.

mitmproxy 12.2 looks through its 50 addons for each event, and enters a context manager for each of them; a request has
nine events. That was a quarter of the gateway's time. Which hooks run, in which order, and what becomes of an error in
one is as before. And mitmproxy checks the types of a message's fields whenever it makes one, which finds errors in
programs, not in messages: only a Python without ``-O`` does it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mitmproxy import addonmanager, http
from mitmproxy.addonmanager import AddonManager
from mitmproxy.exceptions import AddonHalt, AddonManagerError, OptionsError

if TYPE_CHECKING:
    from mitmproxy.hooks import Hook

RARE: Final = frozenset({"load", "configure", "running", "done"})
"""Events in which addons come and go; they stay with mitmproxy."""

_trigger: Final = AddonManager.trigger
_trigger_event: Final = AddonManager.trigger_event
_KEPT: Final = "_immich_hooks"


def install() -> None:
    """Change how mitmproxy tells its addons; once more does nothing. It stays when the script is unloaded."""
    AddonManager.trigger = trigger  # type: ignore[method-assign]
    AddonManager.trigger_event = trigger_event  # type: ignore[method-assign]
    http.MessageData.__post_init__ = lambda _self: None  # type: ignore[method-assign]


async def trigger_event(self: AddonManager, event: Hook) -> None:
    """Tell all addons of *event*, one after the other; an error ends the turn of one, and of those within it."""
    if event.name in RARE:
        await _trigger_event(self, event)
        return
    arguments = event.args()
    for hooks in _table(self).of(event):
        try:
            for hook in hooks:
                result = hook(*arguments)
                if result is not None and inspect.isawaitable(result):
                    await result
        except AddonHalt:
            return
        except OptionsError:
            raise
        except Exception:
            with addonmanager.safecall():
                raise


def trigger(self: AddonManager, event: Hook) -> None:
    """Tell all addons of *event*, none of which may wait for anything."""
    if event.name in RARE or _table(self).of(event):
        _trigger(self, event)


class _Table:
    """The hooks of all addons in a *manager*, looked for once for each event, until an addon comes or goes."""

    def __init__(self, manager: AddonManager) -> None:
        self._manager = manager
        self._chain, self._length = manager.chain, len(manager.chain)
        within = [addon for addon in addonmanager.traverse(manager.chain) if hasattr(addon, "addons")]
        self._within = [(addon, list(addon.addons)) for addon in within]
        self._hooks: dict[str, list[list[Callable[..., Any]]]] = {}

    def fits(self) -> bool:
        """Whether the addons are still the same: mitmproxy appends one, or makes a new list without one."""
        chain = self._manager.chain
        return (
            chain is self._chain
            and len(chain) == self._length
            and all(list(addon.addons) == known for addon, known in self._within)
        )

    def of(self, event: Hook) -> list[list[Callable[..., Any]]]:
        """Return the hooks for *event*: those of each addon with the addons in it, where there are any."""
        found = self._hooks.get(event.name)
        if found is None:
            each = [self._look(addon, event) for addon in self._chain]
            found = self._hooks[event.name] = [hooks for hooks in each if hooks]
        return found

    def _look(self, addon: Any, event: Hook) -> list[Callable[..., Any]]:
        hooks = []
        try:
            for _, hook in self._manager._iter_hooks(addon, event):
                hooks.append(hook)
        except AddonManagerError as error:  # it is no function: said at each event, as mitmproxy does
            hooks.append(partial(_refuse, error))
        return hooks


def _refuse(error: AddonManagerError, *_arguments: object) -> None:
    raise error


def _table(manager: AddonManager) -> _Table:
    known: _Table | None = getattr(manager, _KEPT, None)
    if known is None or not known.fits():
        known = _Table(manager)
        setattr(manager, _KEPT, known)
    return known
