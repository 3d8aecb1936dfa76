"""XGBoost's trees, from the model's own JSON (https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .onnx_file import Tree

Array = np.ndarray


def forests(model: Any) -> Iterator[Mapping[str, Any]]:
    """The arguments of `export._forest`, one set; none for a model that computes otherwise."""
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective, kind = learner["objective"]["name"], type(model).__name__
    parameters, inner = learner["learner_model_param"], learner["gradient_booster"]
    if inner["name"] != "gbtree" or (kind, objective) not in _DECISIONS:
        return
    outputs = max(1, int(parameters.get("num_class", 0)))
    trees = [
        _tree(tree, outputs, group)
        for tree, group in zip(inner["model"]["trees"], inner["model"]["tree_info"], strict=True)
    ]
    base = np.array(json.loads(f"[{parameters['base_score'].strip('[]')}]"), np.float32)
    if objective.startswith("binary:"):
        base = -np.log(np.float32(1) / base - np.float32(1))
    decide = _DECISIONS[kind, objective]
    yield {
        "trees": trees,
        "features": int(parameters["num_feature"]),
        "mean": False,
        "start": np.broadcast_to(base, (outputs,)),
        "classes": np.asarray(model.classes_) if decide.startswith("class") else None,
        "decide": decide,
    }


_DECISIONS = {
    ("XGBClassifier", "binary:logistic"): "class_probable",
    ("XGBClassifier", "multi:softprob"): "class",
    ("XGBRegressor", "reg:squarederror"): "score",
    ("Booster", "binary:logistic"): "probability",
    ("Booster", "reg:squarederror"): "score",
}


def _tree(tree: Mapping[str, Any], outputs: int, group: int) -> Tree:
    if any(tree.get("split_type", ())):
        raise ValueError("a tree splits by category")
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
