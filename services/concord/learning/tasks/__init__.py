"""The built-in tasks by name; each module has `build_task(options)` and is imported when asked for."""

from __future__ import annotations

from collections.abc import Mapping

BUILT_IN: Mapping[str, str] = {
    "digits": "concord.learning.tasks.digits",
    "cifar10": "concord.learning.tasks.cifar10",
    "fashion-mnist": "concord.learning.tasks.fashion_mnist",
    "chest-xray": "concord.learning.tasks.chest_xray",
}
