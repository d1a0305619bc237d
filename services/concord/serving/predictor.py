"""The model a site serves, and how a newer one takes its place without a request noticing.

A request takes `Predictor.current()` once and answers with nothing else: weights, version and round come from
that one immutable object, and a swap replaces the reference to it. Must not know HTTP, JSON or the shelf.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from concord.errors import NoModelError, RefusalReason, SnapshotRefused, UnknownModelError
from concord.learning.pictures import PictureForm
from concord.serving.packing import Blueprint
from concord.serving.tensors import all_finite
from concord.site.ports import Snapshot

WARM_UPS = 3
"""Forward passes of one row before a model is served: the first allocates, the fastest says what one row costs."""
WARM_ROWS = (2, 8, 32)
"""Rows of one further pass each: some libraries prepare themselves for every new size of a batch."""
PERSONAL_SUFFIX = "-personal"
"""What the name of the site's own variant of a model ends with."""

Observer = Callable[[Tensor, "Prediction"], None]
"""Told of inputs and the answer to them, in whichever thread answered; must return at once."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of one model to n rows.

    `outputs` is what the model returned, (n, ...) float32. For a classifier `probabilities` is (n, classes),
    `winners` holds the n indices of the likeliest classes and `labels` their names; else None and empty. Probabilities
    of one row add up to one, unless classes are told each by itself. `finite` says whether all outputs are.
    """

    outputs: Tensor
    probabilities: Tensor | None
    winners: tuple[int, ...]
    labels: tuple[str, ...]
    snapshot: Snapshot
    finite: bool

    def split(self, sizes: Sequence[int]) -> list[Prediction]:
        """The answers to the first `sizes[0]` rows, to the next `sizes[1]`, and so on."""
        parts: list[Prediction] = []
        start = 0
        for size in sizes:
            rows = slice(start, start + size)
            outputs = self.outputs[rows]
            probabilities = None if self.probabilities is None else self.probabilities[rows]
            finite = self.finite or all_finite(outputs)
            winners, labels = self.winners[rows], self.labels[rows]
            parts.append(Prediction(outputs, probabilities, winners, labels, self.snapshot, finite))
            start += size
        return parts

    @property
    def version(self) -> int:
        """Version of the snapshot that answered."""
        return self.snapshot.version

    @property
    def round(self) -> int:
        """Training round of the snapshot that answered."""
        return self.snapshot.round


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model and the snapshot it came from (without its blob); `seconds` is what one row takes.

    The module is in eval mode and is never changed after this object exists. `personal` is the site's own variant, if
    the snapshot has one. `observer` is told of every answer.
    """

    name: str
    module: nn.Module
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    snapshot: Snapshot
    seconds: float
    multi_label: bool = False
    picture: PictureForm | None = None
    personal: ServedModel | None = None
    observer: Observer | None = None

    def own_variant(self) -> ServedModel:
        """The site's own variant; UnknownModelError if this version has none."""
        if self.personal is None:
            raise UnknownModelError("model_name", f"{self.name!r}; this version has no variant of the site's own")
        return self.personal

    def predict(self, inputs: Tensor) -> Prediction:
        """Answer for `inputs` of shape (n, *input_shape), float32. Safe to call from several threads."""
        prediction = self._answer(inputs)
        if self.observer is not None:
            self.observer(inputs, prediction)
        return prediction

    @torch.inference_mode()
    def _answer(self, inputs: Tensor) -> Prediction:
        outputs = self.module(inputs)
        finite = all_finite(outputs)
        if not self.classes:
            return Prediction(outputs, None, (), (), self.snapshot, finite)
        probabilities = outputs.sigmoid() if self.multi_label else outputs.softmax(dim=-1)
        winners = tuple(probabilities.argmax(dim=-1).tolist())
        labels = tuple(self.classes[winner] for winner in winners)
        return Prediction(outputs, probabilities, winners, labels, self.snapshot, finite)


@dataclass(slots=True)
class PredictorState:
    """Counters since the start: models taken into service, and snapshots refused by reason."""

    swaps: int = 0
    refused: Counter[RefusalReason] = field(default_factory=Counter)


class Predictor:
    """Holds the served model. `swap` is for one caller at a time; everything else is free of that."""

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        classes: tuple[str, ...],
        input_shape: tuple[int, ...],
        name: str,
        fingerprint: str | None = None,
        multi_label: bool = False,
        picture: PictureForm | None = None,
    ) -> None:
        """`classes` is empty if the model is no classifier; without `fingerprint` only form is checked.

        With `multi_label` any number of classes may be right at once; `picture` says what pictures inputs are.
        """
        self.name = name
        self.classes = classes
        self.input_shape = input_shape
        self.state = PredictorState()
        self._multi_label = multi_label
        self._picture = picture
        self._fingerprint = fingerprint
        self.observer: Observer | None = None
        """Is told of the answers of each model that is put into service from now on."""
        self._served: ServedModel | None = None
        # One build, then assembly: initialising parameters draws from the generator of a trainer beside us.
        with torch.random.fork_rng(devices=()):
            self._blueprint = Blueprint(build_model().eval().requires_grad_(False))

    @property
    def served(self) -> ServedModel | None:
        """The model in service, or None before the first snapshot."""
        return self._served

    def current(self) -> ServedModel:
        """The model in service; NoModelError before the first snapshot."""
        if self._served is None:
            raise NoModelError("model", "no snapshot of this model has been published yet")
        return self._served

    def predict(self, inputs: Tensor) -> Prediction:
        """Answer with the model in service; see `ServedModel.predict`."""
        return self.current().predict(inputs)

    def swap(self, snapshot: Snapshot) -> ServedModel:
        """Put a snapshot into service: built and warmed up beside the old model, which answers until then.

        SnapshotRefused, counted, and the old model stays, if the snapshot is torn or of another model.
        """
        served = replace(self.prepare(snapshot), observer=self.observer)
        self._served = served
        self.state.swaps += 1
        return served

    def prepare(self, snapshot: Snapshot) -> ServedModel:
        """A model ready to answer, not in service; SnapshotRefused, counted, as for `swap`."""
        try:
            return self._load(snapshot)
        except SnapshotRefused as refusal:
            self.state.refused[refusal.reason] += 1
            raise

    def _load(self, snapshot: Snapshot) -> ServedModel:
        if self._fingerprint is not None and snapshot.fingerprint != self._fingerprint:
            detail = f"snapshot {snapshot.version} is of model {snapshot.fingerprint}, not {self._fingerprint}"
            raise SnapshotRefused(RefusalReason.FINGERPRINT, detail)
        unpacked = self._blueprint.unpack(snapshot.blob)
        about = replace(snapshot, blob=b"")
        model = self._model(self.name, unpacked.module, about)
        if unpacked.personal is None:
            return model
        about = replace(about, metrics=about.personal)
        return replace(model, personal=self._model(self.name + PERSONAL_SUFFIX, unpacked.personal, about))

    def _model(self, name: str, module: nn.Module, snapshot: Snapshot) -> ServedModel:
        _lay_out(module)
        outputs, seconds = self._warm_up(module)
        return ServedModel(
            name=name,
            module=module,
            classes=self.classes,
            input_shape=self.input_shape,
            output_shape=tuple(outputs.shape[1:]),
            snapshot=snapshot,
            seconds=seconds,
            multi_label=self._multi_label,
            picture=self._picture,
        )

    @torch.inference_mode()
    def _warm_up(self, module: nn.Module) -> tuple[Tensor, float]:
        fastest = float("inf")
        for _ in range(WARM_UPS):
            started = time.perf_counter()
            outputs = self._try(module, 1)
            fastest = min(fastest, time.perf_counter() - started)
        self._check_outputs(outputs)
        for rows in WARM_ROWS:
            self._try(module, rows)
        return outputs, fastest

    def _try(self, module: nn.Module, rows: int) -> Tensor:
        inputs = torch.zeros(rows, *self.input_shape)
        try:
            outputs: Tensor = module(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            detail = f"the model does not answer to inputs of shape {list(inputs.shape)}: {error}"
            raise SnapshotRefused(RefusalReason.LAYOUT, detail) from error
        return outputs

    def _check_outputs(self, outputs: Tensor) -> None:
        wanted = (1, len(self.classes)) if self.classes else (1, *outputs.shape[1:])
        if tuple(outputs.shape) != wanted:
            detail = f"the model answers with shape {list(outputs.shape)} to one row, not {list(wanted)}"
            raise SnapshotRefused(RefusalReason.LAYOUT, detail)


def _lay_out(module: nn.Module) -> None:
    """Put the weights of convolutions over pictures into the order in which they are computed fastest."""
    for convolution in module.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
