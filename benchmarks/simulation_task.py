"""The tasks that the simulator is measured with: data and models of built-in ones, with hardly a test set."""

from __future__ import annotations

from functools import cache

from torch import nn

from concord.learning.samples import Samples
from concord.learning.tasks import digits, fashion_mnist

COPIES = 23
"""Of the digits, so that each of a thousand sites can fill a batch of 32."""
Data = tuple[Samples, Samples]


@cache
def many_digits() -> Data:
    """33,166 training samples, 23 times the same, and one to test."""
    pool = digits.load_pool()
    return Samples.concatenate([pool.train] * COPIES), Samples(pool.test.inputs[:1], pool.test.targets[:1])


@cache
def garments() -> Data:
    """60,000 training samples of Fashion-MNIST, and one to test."""
    pool = fashion_mnist.load_pool()
    return pool.train, Samples(pool.test.inputs[:1], pool.test.targets[:1])


def mlp() -> nn.Module:
    """That of the digits: 9,610 parameters."""
    return digits.build_task({}).build_model()


def cnn() -> nn.Module:
    """That of Fashion-MNIST: 20,586 parameters."""
    return fashion_mnist.build_task({}).build_model()
