"""The backend `tabpfn`: the local models of the open-source package `tabpfn`, where it and its weights are installed.

Names and shapes follow the package's `TabPFNClassifier` and `TabPFNRegressor` (read in its source of 2026; it is not
among this project's dependencies, so the tests run against a fake of it).
"""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tabpfn_emulator._envelopes import DataError
from tabpfn_emulator._extra import TABPFN_REMEDY, has_tabpfn

_SHARED_KEYS = ("n_estimators", "softmax_temperature", "average_before_softmax", "random_state")
_CLASSIFIER_KEYS = (*_SHARED_KEYS, "balance_probabilities")


@dataclass(frozen=True)
class LocalTabPFN:
    """A fitted local model.

    Attributes:
        model: The package's estimator.
        classes: How many classes the train set has; 0 for a regression.
    """

    model: Any
    classes: int

    def outputs(self, features: np.ndarray, output_type: str, quantiles: tuple[float, ...]) -> dict[str, np.ndarray]:
        """Return what an output type asks for, as `Estimator.outputs` says.

        Raises:
            DataError: When the package refuses the data; the text is its own.
        """
        try:
            if self.classes:
                # A class may be absent from the sample that the model has learnt from.
                shares = np.zeros((len(features), self.classes))
                shares[:, np.asarray(self.model.classes_, dtype=np.intp)] = self.model.predict_proba(features)
                return {"probas": shares}
            answer = self.model.predict(features, output_type=output_type, quantiles=list(quantiles))
        except Exception as problem:  # the package's own errors have no common base
            raise _refused(problem) from problem
        if output_type not in {"main", "full"}:
            return {output_type: _array(answer)}
        outputs = {name: _array(answer[name]) for name in ("mean", "median", "mode", "quantiles")}
        if output_type == "full":
            outputs |= {"logits": _array(answer["logits"]), "borders": _array(answer["criterion"].borders)}
        return outputs


def fit_local(features: np.ndarray, target: np.ndarray, classes: int, config: dict[str, Any]) -> LocalTabPFN:
    """Fit a local model.

    Args:
        features: float32, shape (rows, features); NaN is missing.
        target: Class numbers from 0, or the numbers of a regression.
        classes: How many classes there are; 0 for a regression.
        config: The effective `tabpfn_config`. `model_path` and what depends on the hardware stay the package's own
            choice; the emulator's limits hold instead of those of pre-training.

    Raises:
        DataError: When the package is not installed any more (a start and a change of settings look for it), when its
            weights cannot be had, or when it refuses the data; the text says what to do.
    """
    if not has_tabpfn():
        raise DataError(TABPFN_REMEDY)
    name, keys = ("TabPFNClassifier", _CLASSIFIER_KEYS) if classes else ("TabPFNRegressor", _SHARED_KEYS)
    given = {key: config[key] for key in keys if config.get(key) is not None}
    try:
        estimator = getattr(importlib.import_module("tabpfn"), name)
        return LocalTabPFN(estimator(ignore_pretraining_limits=True, **given).fit(features, target), classes)
    except Exception as problem:  # missing weights, a broken torch and refused data have no common base
        raise _refused(problem) from problem


def _refused(problem: Exception) -> DataError:
    return DataError(
        f"The local TabPFN model refused: {type(problem).__name__}: {problem}. "
        "Its weights must be installed as the package's documentation says."
    )


def _array(value: Any) -> np.ndarray:
    # Tensors may be on a device, and may ask for gradients.
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)
