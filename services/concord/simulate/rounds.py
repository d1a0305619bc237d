"""Runs the algorithms that need a server, to compare with: rounds in lock-step, in which nothing is ever lost.

All that happens to deployed sites by chance is left out, so that what is shown is the best such a server could do; only
the time that a round takes is counted. Must not know the job, files or a real clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from concord.consensus.algorithm import payload_bytes
from concord.consensus.server import Client, Server
from concord.learning.samples import Samples
from concord.learning.steps import Evaluation, Learner
from concord.simulate.experiment import Gradients, Progress, Row, Run, gradients_by_site
from concord.simulate.network import Traffic
from concord.site.own import OwnParameters


@dataclass(frozen=True, slots=True)
class Participant:
    """One site: `seconds` (virtual) that its part of a round takes, transfers included, and its `weight` (> 0).

    `row` is where its model lies in the tensor of all sites' models.
    """

    name: str
    learner: Learner
    client: Client
    seconds: float
    weight: float = 1.0
    own: OwnParameters | None = None
    row: int = 0

    @property
    def keeps_something(self) -> bool:
        """Whether its model may differ from that of the server: by own parameters, or by running averages."""
        return self.own is not None or any(True for _ in self.learner.module.buffers())


@dataclass(frozen=True, slots=True)
class Timetable:
    """The end, after `rounds` or so many virtual `seconds` (one of them is given), and when to measure."""

    evaluate_every: float
    rounds: int | None = None
    seconds: float | None = None

    def is_over(self, rounds: int, now: float, ahead: float) -> bool:
        """Whether no round that takes `ahead` seconds has room any more."""
        if self.rounds is not None and rounds >= self.rounds:
            return True
        return self.seconds is not None and now + ahead > self.seconds

    def share_done(self, rounds: int, now: float) -> float:
        """How much of the run is over, from 0 to 1."""
        by_rounds = rounds / self.rounds if self.rounds else 0.0
        by_seconds = now / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_rounds, by_seconds))


class ServerExperiment:
    """One run of `participants` (at least one), all in every round, measured on `test`.

    Ends early after a round in which a site had not one finite gradient: there is no earlier model to go back to.
    """

    def __init__(
        self,
        participants: Sequence[Participant],
        timetable: Timetable,
        test: Samples,
        metric: str,
        gradients: Gradients = gradients_by_site,
    ) -> None:
        self._participants = participants
        self._timetable = timetable
        self._test = test
        self._metric = metric
        self._gradients = gradients
        client = participants[0].client
        self._server = Server(client.primal, client.parts)
        self._message_bytes = payload_bytes(client.layout())
        self._steps = client.step.steps
        self._round = 0
        self._good_steps: dict[str, int] = {}
        self._metrics: dict[str, Mapping[str, float]] = {}

    def run(self, progress: Progress = lambda _: None) -> Run:
        """Let the rounds go by until the end; once only."""
        timetable, ahead = self._timetable, max(one.seconds for one in self._participants)
        rows = list(self._measure())
        measured = 0
        while self._goes_on() and not timetable.is_over(self._round, self._round * ahead, ahead):
            self._do_round()
            progress(timetable.share_done(self._round, self._round * ahead))
            due = int(self._round * ahead / timetable.evaluate_every)
            if due > measured:
                measured = due
                rows += self._measure()
        if rows[-1].round != self._round:
            rows += self._measure()
        return Run(tuple(rows), self._gave_up(), self._traffic(), self._metrics)

    def _do_round(self) -> None:
        self._good_steps = dict.fromkeys((one.name for one in self._participants), 0)
        for one in self._participants:
            one.client.begin(self._server.tell())
        for _ in range(self._steps):
            self._step()
        self._server.combine([(one.weight, one.client.report()) for one in self._participants])
        self._round += 1

    def _step(self) -> None:
        for one, result in zip(self._participants, self._gradients(self._participants), strict=True):
            if result.finite:
                self._good_steps[one.name] += 1
                one.client.local_step(one.learner.flat.shared.gradient)
                if one.own is not None:
                    one.own.step()

    def _measure(self) -> Iterator[Row]:
        """The server's model at every site, with what the site keeps for itself; once for all if they keep nothing."""
        seconds = self._round * max(one.seconds for one in self._participants)
        evaluation: Evaluation | None = None
        for one in self._participants:
            one.client.begin(self._server.tell())
            if evaluation is None or one.keeps_something:
                evaluation = one.learner.evaluate(self._test)
            self._metrics[one.name] = evaluation.metrics
            yield Row(
                seconds=seconds,
                site=one.name,
                round=self._round,
                step=self._round * self._steps,
                loss=evaluation.loss,
                metric=evaluation.metrics[self._metric],
                bytes_sent=self._round * self._message_bytes,
            )

    def _goes_on(self) -> bool:
        return not self._gave_up() and all(one.learner.affords(self._steps) for one in self._participants)

    def _gave_up(self) -> tuple[str, ...]:
        return tuple(name for name, steps in self._good_steps.items() if not steps)

    def _traffic(self) -> Traffic:
        """Up and down."""
        messages = 2 * self._round * len(self._participants)
        return Traffic(posted=messages, sent=messages, bytes=messages * self._message_bytes)
