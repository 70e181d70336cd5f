"""Promoting in a widget: what it would do, then doing it, its progress, its lag, the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.jupyter.widgets.figures import Json, health_json, outlook_lines
from fs_notebook.jupyter.widgets.panel import Panel, action, script, synced
from fs_notebook.outlooks import FOLD, SERVES, Outlook
from fs_notebook.portraits import Health

if TYPE_CHECKING:
    from fs_notebook.catalog.model import Group
    from fs_notebook.session import Session

POLL_S = 0.5


@dataclass(frozen=True)
class Pace:
    """How fast a bootstrap goes: its share when it was seen first, and when that changed last."""

    version: int
    begun_s: float
    share_then: float
    at_s: float
    share: float

    def left_s(self, now_s: float) -> float | None:
        """Return about how many seconds are left; None where that cannot be told yet."""
        done = self.share - self.share_then
        if done <= 0:
            return None
        whole_s = (self.at_s - self.begun_s) * (1 - self.share) / done
        return max(whole_s - (now_s - self.at_s), 0.0)


class Promoting(Panel):
    """A widget from which features are promoted."""

    promotion = synced(None)
    """The group that is asked about or promoted: `name`, `lines`, `work`, `health`, `left_s`."""

    _pace: Pace | None = None
    """Of the version that is bootstrapped."""

    def ask(self, name: str) -> None:
        """Show what promoting a group would do; some of its history is folded for a try."""
        outlook = self.session.outlook(name)
        self.show(promotion=self._told(outlook.name, outlook))

    def _told(self, name: str, outlook: Outlook | None = None) -> Json:
        """Return what there is to say of a group's promotion now, the outlook kept."""
        session = self.session
        view = session.view(name)
        known = self.promotion or {}
        asked: Json = {k: known.get(k) for k in ("lines", "work", "target")}
        if outlook is not None:
            asked = {
                "lines": [list(line) for line in outlook_lines(outlook)], "work": outlook.work,
                "target": outlook.version,
            }  # fmt: skip
        group = session.catalog.refresh().group(name)
        health = session.health(name)
        return {
            **asked, "name": name, "state": view["state"], "version": view["version"],
            "previous": view["previous"], "wanted": _wanted(group),
            "left_s": self._left_s(_wanted(group), health),
            "health": [health_json(h) for h in health],
            "at_us": session.clock.now_us(),
        }  # fmt: skip

    def _left_s(self, wanted: int | None, health: list[Health]) -> float | None:
        """Return how many seconds the bootstrap goes on at the pace since it is watched."""
        one = next((h for h in health if h.version == wanted and h.progress is not None), None)
        if one is None or one.progress is None:
            self._pace = None
            return None
        now_s = self._clock.monotonic_s()
        if self._pace is None or self._pace.version != one.version:
            self._pace = Pace(one.version, now_s, one.progress, now_s, one.progress)
        elif one.progress != self._pace.share:
            self._pace = replace(self._pace, share=one.progress, at_s=now_s)
        return self._pace.left_s(now_s)

    def follow(self) -> None:
        """Read how the promotion that is shown is doing."""
        if self.promotion is not None:
            self.show(promotion=self._told(self.promotion["name"]))

    @action(name=str)
    def promote(self, name: str) -> None:
        """Promote a group's newest definition; its worker goes on whatever becomes of this."""
        self.session.promote(name, wait=False)
        self.show(promotion={**self._told(name), "lines": [], "work": FOLD})

    @action(name=str)
    def roll_back(self, name: str) -> None:
        """Serve the former version again, or take back a promotion that is under way."""
        self.session.rollback(name)
        self.ask(name)

    @action(name=str)
    def call_off(self, name: str) -> None:
        """Stop a bootstrap: what served goes on serving; a first version is retired."""
        session = self.session
        group = session.catalog.refresh().group(name)
        serving = None if group.serving is None else group.serving.number
        if _wanted(group) in (None, serving):
            raise UsageError(
                f"Nothing of {group.name!r} is being bootstrapped.",
                found="nothing promoted" if serving is None else f"v{serving} serves",
                remedy="Roll back, where a former version is to serve again",
            )  # fmt: skip
        if serving is None:
            session.retire(group.name, _wanted(group))
        else:
            session.rollback(group.name)
        self.ask(group.name)


def _wanted(group: Group) -> int | None:
    """Return the version that serves or is to serve; one that was called off is neither."""
    retired = group.wanted is not None and group.version(group.wanted).retired
    return None if retired else group.wanted


class PromotePanel(Promoting):
    """One group's promotion. See `fs.promote_panel`."""

    _esm = script("promotion", "promote_panel")

    def __init__(self, name: str, *, session: Session | None = None) -> None:
        super().__init__(session, every_s=POLL_S)
        try:
            self.ask(name)
        except FeatureStoreError:
            self.close()
            raise

    def tick(self) -> None:
        self.follow()

    @action()
    def look(self) -> None:
        """Ask again what promoting would do."""
        if self.promotion is not None:
            self.ask(self.promotion["name"])

    def __repr__(self) -> str:
        known: dict[str, Any] = self.promotion or {}
        serves = "" if known.get("version") is None else f", v{known['version']} serves"
        lines = [f"{known.get('name')}: {known.get('state')}{serves}"]
        if known.get("work") not in (None, SERVES):
            lines += [f"  {label}: {text}" for label, text in known.get("lines") or ()]
        for one in known.get("health") or ():
            late = "" if one["lag_s"] is None else f", {one['lag_s']:.1f} s"
            lines.append(f"  v{one['version']} {one['state']}: lag {one['lag']}{late}, "
                         f"{one['events']:,} events, at {one['position']}")  # fmt: skip
        return "\n".join(lines)
