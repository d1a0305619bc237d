"""What the sites rely on. Run with `python -m pytest`."""

import torch
from task import build, load

SITES = ("north", "east", "south", "west")


def test_a_site_has_inputs_that_the_model_takes() -> None:
    for site in SITES:
        (inputs, targets), (held_out, _) = load(site, SITES)
        assert len(inputs) == len(targets) > 0
        assert len(held_out) > 0
        assert build()(inputs).shape[0] == len(inputs)


def test_a_site_gets_the_same_data_each_time() -> None:
    (first, _), _ = load("east", SITES)
    (again, _), _ = load("east", SITES)
    assert torch.equal(first, again)


def test_sites_know_different_things() -> None:
    (_, north), _ = load("north", SITES)
    (_, south), _ = load("south", SITES)
    assert not set(north.tolist()) & set(south.tolist())
