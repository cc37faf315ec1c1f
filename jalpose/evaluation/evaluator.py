"""How a run scores its models on the test set, and its choices by the pool's labels."""

import functools

import jax
import numpy as np

from jalpose.data.dataset import Dataset, Labelled
from jalpose.evaluation import measures
from jalpose.runtime.throughput import Meter
from jalpose.scoring.passes import Examples, Passes, collect
from jalpose.scoring.probe import Probe
from jalpose.tasks.labels import Labels, Predicted, Truth
from jalpose.tasks.task import Task, lacking


class Evaluator:
    """The evaluation that a config describes, on one dataset.

    Args:
      labels: of the task, NumPy half.
      dataset: the benchmark.
      size: of the crops, pixels.
      block: examples a forward pass, over all devices.
      true_norms: of everything scored, measure the gradient norms of the true labels.
    """

    def __init__(
        self, labels: Labels, dataset: Dataset, *, size: int, block: int, true_norms
    ):
        self.labels, self.dataset, self.true_norms = labels, dataset, true_norms
        self._size, self._block = size, block

    def labels_of(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Labels of the crops of examples whose truth the data set knows."""
        windows = self.dataset.windows_of(ids)
        return self.labels.in_crop(self.dataset.truth_of(ids), windows, self._size)

    def evaluate(self, passes: Passes, variables, meter: Meter) -> tuple[dict, dict]:
        """Test metrics, and arrays: ids, predictions (image pixels) and losses."""
        data, ids = self.dataset, self.dataset.test
        found = collect(
            passes.walk(
                passes.describe,
                variables,
                Examples(data, self.labels_of),
                ids,
                block=self._block,
                meter=meter,
            )
        )
        predicted = self._place(found, ids)
        truth = data.truth_of(ids)
        guess = self.labels.guess(
            data.truth_of(data.initial),
            data.windows_of(data.initial),
            data.windows_of(ids),
        )
        metrics = self.labels.metrics(
            self.labels.score(predicted, truth), self.labels.score(guess, truth)
        )
        metrics["test_loss"] = float(found["loss"].mean(dtype=np.float64))
        arrays = {
            "test_ids": ids,
            **{
                f"test_{name}": _recorded(predicted[name])
                for name in self.labels.recorded
            },
            "test_losses": found["loss"],
        }
        return metrics, arrays

    def evaluate_training(
        self, passes: Passes, variables, meter: Meter, labelled: Labelled, truth: Truth
    ) -> dict[str, float | None]:
        """Score and mean loss of the images trained on, as they are: for the metrics.

        Without augmentation and with the network as it is on the test set, so that the
        two can be compared: the gap of Wang et al., AAAI 2022, Table 3. How they took
        their training accuracy they do not say.

        Args:
          passes: of the network.
          variables: of the network.
          meter: counts what is done.
          labelled: those labelled; the held-out ones are left out.
          truth: what was bought of the labelled, in pixels of the image.

        Returns:
          train_<key of the score>, None where there is nothing to score, and
          train_loss.
        """
        rows = np.flatnonzero(~labelled.held_out)
        trained = labelled.at(rows)
        order = np.argsort(trained.ids)

        def labels_of(ids):
            at = order[np.searchsorted(trained.ids, ids, sorter=order)]
            return {name: values[at] for name, values in trained.labels.items()}

        found = collect(
            passes.walk(
                passes.describe,
                variables,
                Examples(self.dataset, labels_of),
                trained.ids,
                block=self._block,
                meter=meter,
            )
        )
        known = {name: values[rows] for name, values in truth.items()}
        try:
            predicted = self._place(found, trained.ids)
            score = self.labels.score(predicted, known).value
        except ValueError:  # nothing in any label counts
            score = None
        loss = float(found["loss"].mean(dtype=np.float64))
        return {f"train_{self.labels.keys.key}": score, "train_loss": loss}

    def expected_clicks(
        self, probe: Probe, labelled: np.ndarray, truth: Truth, ids: np.ndarray
    ) -> np.ndarray:
        """Clicks that labels are expected to cost: int64 [M]; 1 of a plain task.

        Args:
          probe: of the network that chooses.
          labelled: int64 [L].
          truth: what was bought of the labelled, in pixels of the image.
          ids: int64 [M], whose labels nobody has seen.
        """
        if not hasattr(self.labels, "expected_clicks"):
            return np.ones(len(ids), np.int64)
        known, others = (
            self._place(probe.describe(some), some) for some in (labelled, ids)
        )
        return self.labels.expected_clicks(known, truth, others)

    def measure(
        self, probe: Probe, ids, chosen, scores, truth: Labelled | None
    ) -> tuple[dict, dict]:
        """Measure a choice by the labels of all that was scored, where there are any.

        Args:
          probe: of the network that chose.
          ids: int64 [M], of what was scored.
          chosen: ids of what was chosen.
          scores: float32 [M].
          truth: the true labels of what was scored, in simulation; else None.

        Returns:
          Measures for the record (see `measures.summarise`), and arrays. Outside a
          simulation the measures that need labels are None, and named in `left_out`.
        """
        described = probe.describe(ids)
        predicted = self._place(described, ids)
        key = self.labels.keys.key
        losses, norms = described.get("loss"), None
        more: dict[str, float | None] = {f"selected_{key}": None, f"pool_{key}": None}
        if truth is not None:
            if self.true_norms:
                norms = self.squared_norms(probe, truth)
            picked = np.isin(ids, chosen)
            some = {name: values[picked] for name, values in predicted.items()}
            more = {
                f"selected_{key}": self._score(ids[picked], some),
                f"pool_{key}": self._score(ids, predicted),
            }
        values: dict = measures.summarise(
            ids,
            scores,
            chosen,
            losses,
            sq_norms=norms,
            embeddings=described["embedding"],
            more=more,
        )
        arrays = {
            "embeddings": described["embedding"],
            **{name: _recorded(found) for name, found in predicted.items()},
        }
        if truth is None:
            values["left_out"] = [*measures.OF_LABELS, *more]
        else:
            arrays["true_losses"] = described["loss"]
        if norms is not None:
            arrays["true_squared_norms"] = norms
        return values, arrays

    def measure_test(self, probe: Probe, scores) -> tuple[dict, dict]:
        """Measure how a method's scores order the losses of the test set.

        Learning Loss (Yoo & Kweon, CVPR 2019, section 4) has its ranking accuracy and
        correlations on the test set: it is the same at every cycle and for every
        method, where the pool is what is left.

        Args:
          probe: of the network that the scores are of, in simulation.
          scores: float32 [T], of the test set; None: the method gives none.

        Returns:
          Measures for the record, and arrays.
        """
        names = ("ranking_accuracy", "pearson", "spearman")
        if scores is None:
            return {f"test_{name}": None for name in names}, {}
        losses = probe.describe(self.dataset.test)["loss"]
        values = measures.ranking(scores, losses)
        found = {f"test_{name}": values[name] for name in names}
        return found, {"test_scores": scores}

    def illustrate(self, probe: Probe, labelled, ids, scores, most) -> dict:
        """Arrays that no measure needs, for pictures of the choice.

        Args:
          probe: of the network that chose.
          labelled: int64 [L], ids of the examples it was trained on.
          ids: int64 [M], of what was scored, rising.
          scores: float32 [M].
          most: examples of which `Task.illustrate` is kept, half of them of the highest
            scores and half of the lowest; none where a method gives no scores.

        Returns:
          labelled_ids [L], labelled_embeddings float32 [L, C]; heatmap_ids [n], rising,
          and what the task illustrates them with.
        """
        arrays = {
            "labelled_ids": labelled,
            "labelled_embeddings": probe.embeddings(labelled),
        }
        shown = measures.ends(ids, scores, most)
        if len(shown) and not lacking(probe.task, ("illustrate",)):
            arrays["heatmap_ids"] = shown
            arrays |= probe.reduce(_illustrate(probe.task), shown)
        return arrays

    def _place(self, described, ids) -> Predicted:
        decoded = {k: v for k, v in described.items() if k not in ("embedding", "loss")}
        return self.labels.place(decoded, self.dataset.windows_of(ids), self._size)

    def _score(self, ids, predicted: Predicted) -> float | None:
        """Score of some examples, None where there is nothing to score."""
        try:
            return self.labels.score(predicted, self.dataset.truth_of(ids)).value
        except ValueError:
            return None

    def squared_norms(self, probe: Probe, labelled: Labelled) -> np.ndarray:
        """Squared gradient norm of each example's own label: float32 [M]."""

        def context(positions):
            return {name: v[positions] for name, v in labelled.labels.items()}

        weights = np.broadcast_to(np.float32(1), (len(labelled.ids), 1))
        found = probe.squared_norms(
            own_label(probe.task), labelled.ids, weights, context, approximate=False
        )
        return found["expected"]


def _recorded(values: np.ndarray) -> np.ndarray:
    """Float64 as float32: what was placed in the image was computed in it."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


@functools.cache
def _illustrate(task):
    def illustration(output, key):
        del key
        return task.illustrate(output.prediction)

    return illustration


@functools.cache
def own_label(task: Task):
    """The one target of an example whose label is known, for `Probe.squared_norms`."""

    def target(row):
        return jax.tree.map(lambda leaf: leaf[None], task.target(row))

    return target
