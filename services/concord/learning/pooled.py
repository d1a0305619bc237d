"""The reference line: plain SGD on all the data in one place, what consensus should come close to."""

from __future__ import annotations

from dataclasses import dataclass

from concord.learning.samples import Pool
from concord.learning.steps import Evaluation, GradientOptions, Learner
from concord.learning.task import Task


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The model after `step` steps, measured on the pool's test samples."""

    step: int
    evaluation: Evaluation


def train_pooled(
    task: Task,
    pool: Pool,
    rate: float,
    steps: int,
    options: GradientOptions,
    seed: int,
    evaluate_every: int,
) -> tuple[CurvePoint, ...]:
    """Train a model of `seed` with step size `rate` (> 0); a point at step 0, every so many, and the last.

    A step whose gradient is not finite is left out. Equal arguments give equal curves. Computes where the pool is.
    """
    learner = Learner(task.new_model(seed), task, pool.train, options, seed)
    curve = [CurvePoint(0, learner.evaluate(pool.test))]
    for step in range(1, steps + 1):
        if learner.compute_gradient().finite:
            learner.primal.add_(learner.gradient, alpha=-rate)
        if step % evaluate_every == 0 or step == steps:
            curve.append(CurvePoint(step, learner.evaluate(pool.test)))
    return tuple(curve)
