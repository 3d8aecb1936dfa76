"""XGBoost's trees, from the model's own JSON (https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html)."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .forms import NotExportable
from .onnx_file import Tree

Array = np.ndarray


def forests(model: Any) -> Iterator[Mapping[str, Any]]:
    """The arguments of `export._forest`, the likeliest first. Raises NotExportable."""
    kind = type(model).__name__
    if not math.isnan(getattr(model, "missing", math.nan)):
        raise NotExportable(f"There is no compiled form of an {kind} with another missing value than NaN.")
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective, inner = learner["objective"]["name"], learner["gradient_booster"]
    if inner["name"] != "gbtree":
        raise NotExportable(f"There is no compiled form of XGBoost's {inner['name']}.")
    if objective not in _DECISIONS.get(kind, {}):
        raise NotExportable(f"There is no compiled form of {kind} with the objective {objective}.")
    decide = _DECISIONS[kind][objective]
    parameters = learner["learner_model_param"]
    outputs = max(1, int(parameters.get("num_class", 0)), int(parameters.get("num_target", 0)))
    trees = [
        _tree(tree, outputs, group)
        for tree, group in zip(inner["model"]["trees"], inner["model"]["tree_info"], strict=True)
    ]
    base = np.array(json.loads(f"[{parameters['base_score'].strip('[]')}]"), np.float32)
    if decide in _LINKS:
        base = _LINKS[decide](base)
    for count in _counts(learner, kind, outputs):
        yield {
            "trees": trees[:count],
            "features": int(parameters["num_feature"]),
            "mean": False,
            "start": np.broadcast_to(base, (outputs,)),
            "classes": np.asarray(model.classes_) if decide.startswith("class") else None,
            "decide": "scores" if decide == "score" and outputs > 1 else decide,
        }


def _counts(learner: Mapping[str, Any], kind: str, outputs: int) -> Iterator[int | None]:
    """How many trees are asked; None: all. With early stopping those up to the best round, but for a Booster."""
    best = learner["attributes"].get("best_iteration")
    if kind != "Booster" and best is not None:
        parallel = int(learner["gradient_booster"]["model"]["gbtree_model_param"]["num_parallel_tree"])
        yield (int(best) + 1) * outputs * max(1, parallel)
    yield None


def _log_odds(base: Array) -> Array:
    return np.asarray(-np.log(np.float32(1) / base - np.float32(1)))


_LINKS: Mapping[str, Callable[[Array], Array]] = {
    "class_probable": _log_odds,
    "probability": _log_odds,
    "exponential": np.log,
}
"""By decision: from the base score, which is a prediction, to the score that is decided so. Others take it as it is."""

_CLASSIFIES: Mapping[str, str] = {"binary:logistic": "class_probable", "multi:softprob": "class"}
_CALCULATES: Mapping[str, str] = {
    "binary:logistic": "probability",
    "count:poisson": "exponential",
    "multi:softmax": "number",
    "multi:softprob": "probabilities",
    "rank:map": "score",
    "rank:ndcg": "score",
    "rank:pairwise": "score",
    "reg:absoluteerror": "score",
    "reg:gamma": "exponential",
    "reg:logistic": "probability",
    "reg:pseudohubererror": "score",
    "reg:quantileerror": "score",
    "reg:squarederror": "score",
    "reg:squaredlogerror": "score",
    "reg:tweedie": "exponential",
}
_DECISIONS = {
    "XGBClassifier": _CLASSIFIES,
    "XGBRFClassifier": _CLASSIFIES,
    "XGBRegressor": _CALCULATES,
    "XGBRFRegressor": _CALCULATES,
    "XGBRanker": _CALCULATES,
    "Booster": _CALCULATES,
}
"""By class and objective (https://xgboost.readthedocs.io/en/stable/parameter.html): see `forms.decision`."""


def _tree(tree: Mapping[str, Any], outputs: int, group: int) -> Tree:
    if any(tree.get("split_type", ())):
        raise NotExportable("There is no compiled form of trees that split by category.")
    left = np.array(tree["left_children"])
    condition = np.array(tree["split_conditions"], np.float32)  # at a leaf, its value
    values = np.zeros((len(left), outputs), np.float32)
    values[:, group] = condition
    return Tree(
        left,
        np.array(tree["right_children"]),
        np.array(tree["split_indices"]),
        condition,
        np.array(tree["default_left"]),
        values,
        strict=True,
    )
