"""Edge-consensus learning with smoothed gradients and moving anchors, for deep networks where plain ECL lags.

An anchor that stands still between messages brakes the motion all sites have in common; here it rides along
with that motion, w itself with half of it, and the gradient is averaged over more than one round while w is held
tightly to its anchors.

Legend: w, g, u_ij, mu, eta, K, E_i as in `ecl`; q smoothed gradient, v velocity of the common motion, I_ij
measured interval between messages in own steps, taken anew with each of them; T the mixing
time of the graph, or two fifths of that with one site away; D the reach, a number for each layer l; t the own steps so
far. One local step:

    q    <- beta q + (1 - beta) g                              beta = 1 - 1 / min(t, 6 max(K, 8))
    r     = t / (t + tau)
    u_ij <- u_ij + c r v                                       c = 0.9; only while the edge is fresh
    b     = 1 + 2 exp(-2 t / tau)
    w'    = w + r v / 2 + alpha ((sum_j eta_ij u_ij - b D q) / sum_j eta_ij - w)     alpha = 1/2
    v    <- v + (w' - w - v) / tau      tau = max(20 theta, (2 + theta) T) max I_ij over the fresh edges
    w    <- w'

    D_l   = |w_0|_l^2 / mean over layers of |w_0|^2           w_0 the model that all sites start from

The force within a layer is eta (u - w) / D: D lets a disagreement move each layer by an equal share of its own norm.
With one D for all, the shared filters of convolutions and the last layer are thrown far from their anchors, and
sites of a deep network swing against each other. It is the same at all sites, so it moves no fixed point. Layers
without a matrix are left out of the mean, and their D is at most 1: a norm begins with ones whatever else the model is.

The ride outlasts its cause by several tau. With r it begins slowly, so that the long gradients of the first rounds do
not carry the model far along directions in which nothing holds it (friction that falls with 1 / t, as in Nesterov's
method: Su, Boyd and Candes 2016). What that costs at first, the boost b gives back: three times the reach as long as
there is no ride. It ends twice as fast as a velocity does, so nothing carries it along, and moves no fixed point. A
site that begins late, where others have come to, has b = 1 and beta = 1 - 1 / (6 max(K, 8)), so as not to disturb them.

Messages, receipt and fixed point are those of ECL with eta_ij = 1 / (gamma d_ij), where gamma = 0.25 * 7 mu, whatever
K is: with more steps to the round a longer reach makes deep networks swing, and with fewer a shorter one makes them
slow. d_ij is the larger degree of both ends, but at most twice the smaller: a leaf is held by one edge alone, and held
as weakly as a hub holds to each of its many it would swing. Convergence is measured, not proved. With theta = 1 it
needs sites that are not in perfect lock-step (uneven speeds, some loss or chance in the timing are enough); at the
usual 3/4 it does not. Disagreement over the whole graph dies out within its mixing time T; a velocity that follows
within less takes it for common motion, and all anchors ride away with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from concord.consensus.algorithm import EdgeEnd, EdgeTerms, LocalStep, Message
from concord.consensus.base import AnchoredAlgorithm
from concord.consensus.ecl import averaging_of
from concord.consensus.options import AlgorithmOptions
from concord.consensus.vectors import Layer

ANCHOR_PULL = 0.5
"""alpha: the part of the way to the anchors that one local step goes."""
START_BOOST = 2
"""By how much D is longer at first, in units of itself: b = 1 + 2 exp(-2 t / tau)."""
SMOOTHING_ROUNDS = 6
"""Over how many rounds the gradient is averaged, counting each as 8 steps at least; a mean of all until then."""
SHORTEST_ROUND = 8
USUAL_GAMMA_SCALE = 0.25
USUAL_AVERAGING = 0.75
"""theta: lock-step and news a round late are borne up to about 0.85."""
REACH_STEPS = 7
"""gamma in units of gamma_scale mu: K - 1 for the K of 8 in which gamma_scale was settled."""
ANCHOR_SPEED = 0.9
"""c: the part of the velocity that anchors take; below 1 the ride ends by itself."""
MODEL_SPEED = 0.5
"""The part of the velocity that w takes besides: it halves the brake that w is to its anchors."""
VELOCITY_INTERVALS = 20
"""The least tau in units of theta times the longest interval between messages."""
MIXING_TIMES = 2
"""The least tau less theta in units of the graph's mixing time and that interval: sites part at 1 to 1.9 with
theta = 1/2, at 1.6 to 2.5 with 1 (ring, chain, two regions, 8 to 32 sites)."""
FRESH_INTERVALS = 5
"""For how many intervals without a message an anchor still rides along."""
MOST_UNEQUAL = 2
"""By how much the degree that counts may be above the smaller of both ends."""
_LEAST_REACH = 0.01
"""The least D of a layer."""


@dataclass(slots=True)
class _Arrivals:
    """Own steps since the edge began, messages accepted over it, own steps since the last of them."""

    steps: int = 0
    accepted: int = 0
    silent: int = 0

    def interval(self, round_steps: int) -> float:
        """I_ij: own steps between messages, from `round_steps` before any came to what is measured.

        As it was at the last message: if it grew with the silence, five of it would outlast any silence on an
        edge with few messages, and the anchor of a neighbour that is gone would ride along for ever.
        """
        return (self.steps - self.silent + 2 * round_steps) / (2 + self.accepted)


class SmEcl(AnchoredAlgorithm):
    """ECL with smoothed gradients and moving anchors.

    With no neighbour (or only penalties of zero) it is gradient descent of rate mu along the smoothed
    gradient. `layers` are in the order of the primal; none: it is all one layer.
    """

    name: ClassVar[str] = "sm-ecl"

    def __init__(self, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> None:
        super().__init__(primal, step)
        self._reach = reach(primal, layers or [Layer(primal.numel())])
        self._smoothed = torch.zeros_like(primal)
        self._velocity = torch.zeros_like(primal)
        self._arrivals: dict[str, _Arrivals] = {}
        self._horizon = float(VELOCITY_INTERVALS * step.steps)  # tau
        self._steps = 0  # t
        self._late = False

    @classmethod
    def build(cls, options: AlgorithmOptions, primal: Tensor, step: LocalStep, layers: Sequence[Layer] = ()) -> Self:
        return cls(primal, step, layers)

    @classmethod
    def edge_terms(cls, ours: EdgeEnd, theirs: EdgeEnd, options: AlgorithmOptions) -> EdgeTerms:
        scale = USUAL_GAMMA_SCALE if options.gamma_scale is None else options.gamma_scale
        gamma = scale * REACH_STEPS * max(ours.step.rate, theirs.step.rate)
        less, more = sorted((ours.degree, theirs.degree))
        penalty = 1 / (gamma * min(more, MOST_UNEQUAL * less))
        return EdgeTerms(penalty, averaging_of(options, USUAL_AVERAGING), max(ours.mixing_time, theirs.mixing_time))

    def begin_at(self, model: Tensor) -> None:
        super().begin_at(model)
        self._late = True

    def state(self) -> dict[str, Tensor]:
        counters = {
            f"arrivals/{neighbour}": torch.tensor(astuple(self._arrivals[neighbour]), dtype=torch.int64)
            for neighbour in self._terms
        }
        return {
            **super().state(),
            **counters,
            "reach": self._reach.clone(),
            "smoothed": self._smoothed.clone(),
            "velocity": self._velocity.clone(),
            "horizon": torch.tensor([self._horizon], dtype=torch.float64),
            "steps": torch.tensor([self._steps]),
            "late": torch.tensor([int(self._late)]),
        }

    def _step(self, gradient: Tensor) -> None:
        self._steps += 1
        window = SMOOTHING_ROUNDS * max(self.step.steps, SHORTEST_ROUND)
        self._smoothed.lerp_(gradient, 1 / (window if self._late else min(self._steps, window)))
        fresh = [neighbour for neighbour in self._arrivals if self._is_fresh(neighbour)]
        self._horizon = max(map(self._least_horizon, fresh), default=self._horizon)
        riding = self._steps / (self._steps + self._horizon)
        for neighbour in fresh:
            self._anchors[neighbour].add_(self._velocity, alpha=ANCHOR_SPEED * riding)
        move = self._move(riding)
        self.primal.add_(move)
        self._velocity.lerp_(move, 1 / self._horizon)
        for arrivals in self._arrivals.values():
            arrivals.steps += 1
            arrivals.silent += 1

    def _is_fresh(self, neighbour: str) -> bool:
        arrivals = self._arrivals[neighbour]
        return arrivals.silent <= FRESH_INTERVALS * arrivals.interval(self.step.steps)

    def _least_horizon(self, neighbour: str) -> float:
        """The least tau that this edge allows."""
        terms = self._terms[neighbour]
        intervals = max(VELOCITY_INTERVALS * terms.averaging, (MIXING_TIMES + terms.averaging) * terms.mixing_time)
        return intervals * self._arrivals[neighbour].interval(self.step.steps)

    def _move(self, riding: float) -> Tensor:
        """w' - w, in the mean's buffer."""
        total = self._average_anchors()
        if total == 0:
            return torch.mul(self._smoothed, -self.step.rate, out=self._mean)
        boost = 1.0 if self._late else 1 + START_BOOST * math.exp(-2 * self._steps / self._horizon)
        pull = self._mean.sub_(self.primal).addcmul_(self._smoothed, self._reach, value=-boost / total)
        return pull.mul_(ANCHOR_PULL).add_(self._velocity, alpha=MODEL_SPEED * riding)

    def _take_in(self, neighbour: str, message: Message) -> None:
        super()._take_in(neighbour, message)
        self._arrivals[neighbour].accepted += 1
        self._arrivals[neighbour].silent = 0

    def _join(self, neighbour: str) -> None:
        super()._join(neighbour)
        self._arrivals[neighbour] = _Arrivals()

    def _leave(self, neighbour: str) -> None:
        super()._leave(neighbour)
        del self._arrivals[neighbour]

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        super()._restore(state)
        self._reach.copy_(state["reach"])
        self._smoothed.copy_(state["smoothed"])
        self._velocity.copy_(state["velocity"])
        self._horizon = float(state["horizon"])
        self._steps = int(state["steps"])
        self._late = bool(state["late"])
        for neighbour in self._arrivals:
            self._arrivals[neighbour] = _Arrivals(*(int(count) for count in state[f"arrivals/{neighbour}"]))


def reach(primal: Tensor, layers: Sequence[Layer]) -> Tensor:
    """D at each place of w: the square of its layer's norm, over the mean of these squares over layers with a matrix.

    A layer counts with a small part of the mean at least, because layers may begin at zero, and without a matrix with
    the mean at most. Where no layer with one is above zero, D is 1.
    """
    parts = torch.split(primal, [layer.size for layer in layers])
    squares = torch.stack([part.square().sum() for part in parts])
    matrices = torch.tensor([layer.matrix for layer in layers], device=primal.device)
    among = squares * matrices
    if not among.any():
        return torch.ones_like(primal)
    shares = (squares * matrices.sum() / among.sum()).clamp_min(_LEAST_REACH)
    shares = torch.where(matrices, shares, shares.clamp_max(1))
    return torch.cat([share.expand_as(part) for part, share in zip(parts, shares, strict=True)])
