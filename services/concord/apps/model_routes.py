"""The versions of a model over HTTP: a list for everybody, and pin, roll back and promote for whoever has the token.

The plain port knows no users, so what changes anything is refused unless the process was given a token to ask for.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from math import isfinite

from fastapi import APIRouter, Request, Response

from concord.apps.bare_routes import bare_router
from concord.apps.model_docs import V1_CHANGE, V1_MODELS
from concord.errors import MailboxError, SnapshotRefused
from concord.serving.bodies import encode
from concord.serving.choice import Gate, candidate_of, place_of, version_before
from concord.serving.predictor import PERSONAL_SUFFIX, Predictor
from concord.serving.shadow import Shadow
from concord.serving.snapshots import MOST_PINNED
from concord.serving.watcher import Watcher, WatchTimes
from concord.settings import Secret
from concord.site.ports import Mark, MarkResult, Marks, Snapshot, SnapshotShelf, Stock

ACTIONS = {"pin": Mark.PIN, "unpin": Mark.UNPIN, "rollback": Mark.HOLD, "promote": Mark.PROMOTE}
_PATIENCE = 5.0
"""Seconds that an answer waits for what was asked to be done; it then says how far things are."""
_OFF = (
    "versions cannot be changed here: this process has no admin token; start it with --admin-token-file "
    "(CONCORD_ADMIN_TOKEN_FILE, or CONCORD_ADMIN_TOKEN)"
)
_UNPROVEN = "the header 'Authorization: Bearer TOKEN' with the admin token of this process is needed"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """`gate` decides what is not followed, `shadow` is the share of requests that a candidate answers too.

    Without `admin_token` nobody may pin, roll back or promote.
    """

    gate: Gate | None = None
    shadow: float = 0.0
    admin_token: Secret | None = None


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class ModelService:
    """The routes, and the watcher and the shadow behind them."""

    def __init__(
        self,
        predictor: Predictor,
        shelf: SnapshotShelf,
        options: ModelOptions,
        times: WatchTimes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shadow = Shadow(options.shadow)
        self.watcher = Watcher(predictor, shelf, times, options.gate, self._compare if options.shadow else None)
        self.router = self._routes()
        if options.shadow:
            predictor.observer = self.shadow.offer
        self._predictor = predictor
        self.shelf = shelf
        self._options = options
        self._clock = clock

    @contextmanager
    def running(self) -> Iterator[None]:
        """Compare, if that is wanted, while the block runs."""
        if not self._options.shadow:
            yield
            return
        self.shadow.start()
        try:
            yield
        finally:
            self.shadow.stop()

    def _routes(self) -> APIRouter:
        router = bare_router()
        router.add_api_route("/v1/models", self.list, methods=["GET"], openapi_extra=V1_MODELS, tags=["models"])
        for path, endpoint in (("/v1/models/rollback", self.roll_back), ("/v1/models/{version}/{action}", self.change)):
            router.add_api_route(path, endpoint, methods=["POST"], openapi_extra=V1_CHANGE, tags=["models"])
        return router

    # --- what there is ---------------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """Every version on the shelf, the one in service first: its state, metrics at publication and lineage."""
        try:
            return _json(self._describe(await self.shelf.stock()))
        except MailboxError as error:  # what is served is known without it
            return _json(self._describe(Stock(), str(error)))

    def _describe(self, stock: Stock, problem: str = "") -> dict[str, object]:
        served, gate = self.watcher.served, self._options.gate
        others = (snapshot for snapshot in reversed(stock.snapshots) if served is None or snapshot.key != served.key)
        snapshots = [*([] if served is None else [served]), *others]
        about: dict[str, object] = {
            "models": [self._describe_one(snapshot, stock.marks) for snapshot in snapshots],
            "following": stock.marks.held is None,
            "gate": None if gate is None else asdict(gate),
            "shadow": self._describe_shadow(),
        }
        return about | ({"problem": f"the shelf of models is out of reach: {problem}"} if problem else {})

    def _describe_one(self, snapshot: Snapshot, marks: Marks) -> dict[str, object]:
        place, reason = place_of(snapshot, self.watcher.served, self._options.gate, self.watcher.refused)
        name = self._predictor.name
        lineage = asdict(snapshot.lineage)
        lineage["consensus_distance"] = _number(snapshot.lineage.consensus_distance)
        compared = self.shadow.state.done.get(snapshot.version)
        personal = {"name": name + PERSONAL_SUFFIX, "metrics": _numbers(snapshot.personal)}
        return {
            "name": name,
            "version": snapshot.version,
            "state": place,
            "reason": reason,
            "pinned": snapshot.version in marks.pinned,
            "held": snapshot.version == marks.held,
            "round": snapshot.round,
            "step": snapshot.step,
            "fingerprint": snapshot.fingerprint,
            "metrics": _numbers(snapshot.metrics),
            "created_at": snapshot.created_at,
            "age_seconds": max(0.0, self._clock() - snapshot.created_at),
            "classes": [*self._predictor.classes],
            "input_shape": [*self._predictor.input_shape],
            "lineage": lineage,
            "personal": personal if snapshot.personal else None,
            "shadow": None if compared is None else compared.report(),
        }

    def _describe_shadow(self) -> dict[str, object] | None:
        if not self._options.shadow:
            return None
        state = self.shadow.state
        current = None if state.current is None else state.current.version
        counts = {"compared": state.compared, "dropped": state.dropped, "failed": state.failed}
        return {"share": self._options.shadow, "version": current, **counts}

    # --- what may be asked for -------------------------------------------------------------------------------

    async def change(self, request: Request, version: str, action: str) -> Response:
        """Pin, unpin, roll back to or promote one version."""
        return await self._answer(request, action, version)

    async def roll_back(self, request: Request) -> Response:
        """Roll back to the next older version on the shelf."""
        return await self._answer(request, "rollback", None)

    def refusal(self, request: Request) -> Response | None:
        """The answer to a caller who does not show the token; None if it does."""
        try:
            self._require_token(request)
        except _Refused as refusal:
            return _refused(refusal)
        return None

    async def _answer(self, request: Request, action: str, version: str | None) -> Response:
        try:
            self._require_token(request)
            changed = await self._change(action, version)
            stock = await self.shelf.stock()
        except _Refused as refusal:
            return _refused(refusal)
        except MailboxError as error:
            return _json({"error": f"the shelf of models is out of reach: {error}"}, 503, {"Retry-After": "1"})
        found = stock.find(changed)
        model = {"version": changed} if found is None else self._describe_one(found, stock.marks)
        served = self.watcher.served
        return _json({"model": model, "served": served and served.version, "following": stock.marks.held is None})

    def _require_token(self, request: Request) -> None:
        token = self._options.admin_token
        if token is None:
            raise _Refused(HTTPStatus.FORBIDDEN, _OFF)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.value):
            raise _Refused(HTTPStatus.UNAUTHORIZED, _UNPROVEN)

    async def _change(self, action: str, text: str | None) -> int:
        """Make the mark and wait until the watcher has heeded it; the version it is about."""
        if action not in ACTIONS:
            raise _Refused(HTTPStatus.NOT_FOUND, f"{action!r} should be one of {', '.join(ACTIONS)}")
        mark = ACTIONS[action]
        stock, served = await self.shelf.stock(), self.watcher.served
        version = self._previous(stock) if text is None else _version(text)
        self._check_direction(mark, version)
        result = await self.shelf.mark(mark, version)
        if mark is Mark.PIN and result is MarkResult.DONE and served is not None and served.version == version:
            await self.shelf.mark(Mark.HOLD, version)
        if result is MarkResult.ABSENT:
            what = "neither pinned nor held" if mark is Mark.UNPIN else "not on the shelf"
            raise _Refused(HTTPStatus.NOT_FOUND, f"version {version} is {what}")
        if result is MarkResult.FULL:
            raise _Refused(HTTPStatus.CONFLICT, f"{MOST_PINNED} versions are pinned, which is the most; unpin one")
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not self._heeded(mark, version):
                    await self.watcher.look()
        return version

    def _previous(self, stock: Stock) -> int:
        served = self.watcher.served
        previous = None if served is None else version_before(stock, served)
        if previous is None:
            raise _Refused(HTTPStatus.CONFLICT, "there is no version on the shelf older than the one in service")
        return previous

    def _check_direction(self, mark: Mark, version: int) -> None:
        served = self.watcher.served
        if served is None:
            return
        if mark is Mark.HOLD and version > served.version:
            detail = f"version {version} is newer than {served.version}, which is in service: promote it instead"
            raise _Refused(HTTPStatus.CONFLICT, detail)
        if mark is Mark.PROMOTE and version < served.version:
            detail = f"version {version} is older than {served.version}, which is in service: roll back to it instead"
            raise _Refused(HTTPStatus.CONFLICT, detail)
        refused = {one for one, _ in self.watcher.refused}
        if mark in (Mark.HOLD, Mark.PROMOTE) and version in refused:
            raise _Refused(HTTPStatus.CONFLICT, f"version {version} cannot be loaded; the log says why")

    def _heeded(self, mark: Mark, version: int) -> bool:
        marks, served = self.watcher.stock.marks, self.watcher.served
        match mark:
            case Mark.PIN:
                return version in marks.pinned
            case Mark.UNPIN:
                return version not in marks.pinned and marks.held != version
            case _:
                marked = version in (marks.held, marks.promoted)
                # Something newer may have been published, and followed, since a promotion.
                return marked and served is not None and (served.version == version or marks.is_over(served.version))

    # --- what is compared ------------------------------------------------------------------------------------

    async def _compare(self, stock: Stock) -> None:
        """Keep the shadow on a candidate: the newest there is when it is free, until that one leaves the shelf."""
        served, shelf = self.watcher.served, frozenset(one.version for one in stock.snapshots)
        if served is None:
            return
        present = self.shadow.candidate
        if present is not None and present.snapshot.version > served.version and present.snapshot.version in shelf:
            self.shadow.follow(present, served.version, shelf)
            return
        wanted = candidate_of(stock, served, self.watcher.refused)
        snapshot = None if wanted is None else await self.shelf.load(wanted.version)
        model = None
        if snapshot is not None:
            try:
                model = await asyncio.to_thread(self._predictor.prepare, snapshot)
            except SnapshotRefused:  # counted by the predictor
                self.watcher.refused.add(snapshot.key)
        self.shadow.follow(model, served.version, shelf)


def _refused(refusal: _Refused) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status is HTTPStatus.UNAUTHORIZED else None
    return _json({"error": str(refusal)}, refusal.status, headers)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise _Refused(HTTPStatus.NOT_FOUND, f"versions are decimal numbers, found {text[:40]!r}")
    return int(text)


def _number(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _json(fields: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode(fields), status, headers, "application/json")
