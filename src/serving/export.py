"""Reads from a fitted model what it computes, as a form (see forms.py), in the model's own environment.

Whatever is read wrongly, or differs between versions of a library, is found out when the form is verified; where a
version computes in one of two ways, both are given.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import bitvectors, export_xgboost, walking
from .forms import NotExportable
from .onnx_file import Tree, leaf_finder

Array = np.ndarray


@dataclass(frozen=True)
class Export:
    """A form: `spec` and `arrays` as `forms.load` takes them, `leaves` the content of the ONNX file of trees.

    `thresholds`: by feature, those that its trees compare with; at them the form is verified.
    """

    spec: Mapping[str, Any]
    arrays: Mapping[str, Array]
    leaves: bytes | None = None
    thresholds: Mapping[int, Array] = field(default_factory=dict)


def export(model: Any) -> Iterator[Export]:
    """The forms that a model may have, the likeliest first. Raises NotExportable."""
    if type(model).__module__ == "sklearn.model_selection._search" and hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    steps: list[tuple[str, Array]] = []
    if type(model).__module__ == "sklearn.pipeline" and _name(model) == "Pipeline":
        *before, (_, last) = model.steps
        for _, step in before:
            steps += _scaling(step)
        model = last
    for found in _estimator(model):
        named = {f"step{i}": array for i, (_, array) in enumerate(steps)}
        yield replace(
            found,
            spec={**found.spec, "steps": [[operation, f"step{i}"] for i, (operation, _) in enumerate(steps)]},
            arrays={**found.arrays, **named},
            thresholds={feature: _before(steps, feature, values) for feature, values in found.thresholds.items()},
        )


def _before(steps: list[tuple[str, Array]], feature: int, values: Array) -> Array:
    """The column's values that the steps make of `values`, but for rounding."""
    for operation, array in reversed(steps):
        values = _INVERSE[operation](values, array[feature])
    return values


_INVERSE = {"subtract": np.add, "add": np.subtract, "divide": np.multiply, "multiply": np.divide}


def _scaling(step: Any) -> list[tuple[str, Array]]:
    if step is None or step == "passthrough":
        return []
    name = type(step).__name__
    parts: list[tuple[str, Any]] = []
    if name == "StandardScaler":
        parts = [("subtract", step.mean_ if step.with_mean else None), ("divide", step.scale_)]
    elif name == "RobustScaler":
        parts = [
            ("subtract", step.center_ if step.with_centering else None),
            ("divide", step.scale_ if step.with_scaling else None),
        ]
    elif name == "MaxAbsScaler" and not getattr(step, "clip", False):
        parts = [("divide", step.scale_)]
    elif name == "MinMaxScaler" and not step.clip:
        parts = [("multiply", step.scale_), ("add", step.min_)]
    if type(step).__module__ != "sklearn.preprocessing._data" or not parts:
        raise NotExportable(f"There is no compiled form of {_name(step)}.")
    return [(operation, np.asarray(array, np.float64)) for operation, array in parts if array is not None]


def _estimator(model: Any) -> Iterator[Export]:
    if type(model).__module__.startswith("xgboost."):
        yield from (_forest(**found) for found in export_xgboost.forests(model))
        return
    exporter = next((_EXPORTERS[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in _EXPORTERS), None)
    # A class of the user's own may do anything in its predict.
    if exporter is None or not type(model).__module__.startswith("sklearn."):
        raise NotExportable(f"There is no compiled form of {_name(model)}.")
    if getattr(model, "n_outputs_", 1) != 1:
        raise NotExportable(f"There is no compiled form of {_name(model)} with several outputs.")
    yield from exporter(model)


def _linear(model: Any) -> Iterator[Export]:
    classifies = hasattr(model, "classes_")
    if not hasattr(model, "coef_"):
        raise NotExportable(f"There is no compiled form of {_name(model)}.")
    coefficients, intercept = np.asarray(model.coef_), np.asarray(model.intercept_)
    arrays = {"coefficients": coefficients, "intercept": intercept}
    if classifies:
        arrays["classes"] = _plain(model.classes_)
    yield Export({"score": {"kind": "linear"}, "steps": [], "decide": "class" if classifies else "scores"}, arrays)


def _bagged(model: Any) -> Iterator[Export]:
    """Random forests, extremely randomized trees, and single trees."""
    single = hasattr(model, "tree_")
    estimators = [model] if single else model.estimators_
    classifies = hasattr(model, "classes_")

    def forest(values: Callable[[Any], Array]) -> Export:
        return _forest(
            trees=[_tree(e.tree_, values(e.tree_)) for e in estimators],
            features=model.n_features_in_,
            mean=not single,
            start=None,
            classes=_plain(model.classes_) if classifies else None,
            decide="class" if classifies else "score",
        )

    yield forest(lambda tree: tree.value[:, 0, :])
    if classifies:  # releases in which leaves count, and those in which shares are divided by their sum again
        yield forest(lambda tree: tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True))


def _boosted(model: Any) -> Iterator[Export]:
    """Gradient boosting: each tree adds to one output, after a constant."""
    if not (model.init_ == "zero" or type(model.init_).__name__ in ("DummyClassifier", "DummyRegressor")):
        raise NotExportable(f"There is no compiled form of gradient boosting that begins with {_name(model.init_)}.")
    outputs = model.estimators_.shape[1]
    start = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32)), np.float64)[0]
    trees = []
    for estimator, output in ((e, k) for row in model.estimators_ for k, e in enumerate(row)):
        values = np.zeros((estimator.tree_.node_count, outputs))
        values[:, output] = estimator.tree_.value[:, 0, 0] * model.learning_rate
        trees.append(_tree(estimator.tree_, values))
    classes = _plain(model.classes_) if hasattr(model, "classes_") else None
    for decide in ("score",) if classes is None else ("class", "class_from") if outputs == 1 else ("class",):
        yield _forest(trees, model.n_features_in_, mean=False, start=start, classes=classes, decide=decide)


def _tree(tree: Any, values: Array) -> Tree:
    """A tree of scikit-learn's, which compares floats with a double: so do floats with the next float below it."""
    rounded = tree.threshold.astype(np.float32)
    threshold = np.where(rounded > tree.threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Tree(tree.children_left, tree.children_right, tree.feature, threshold, missing, values)


def _forest(
    trees: list[Tree], features: int, *, mean: bool, start: Array | None, classes: Array | None, decide: str
) -> Export:
    values = np.concatenate([tree.values for tree in trees])
    sizes = [len(tree.left) for tree in trees]
    arrays = {
        "values": values,
        "offsets": np.cumsum([0, *sizes[:-1]]).astype(np.intp),
        "start": np.zeros(values.shape[1], values.dtype) if start is None else start.astype(values.dtype),
    }
    if classes is not None:
        arrays["classes"] = classes
    nodes, tables = walking.nodes(trees), bitvectors.tables(trees)
    arrays |= ({} if nodes is None else {"nodes": nodes}) | (tables or {})
    inner = np.concatenate([tree.left >= 0 for tree in trees])
    feature = np.concatenate([tree.feature for tree in trees])[inner]
    threshold = np.concatenate([tree.threshold for tree in trees])[inner]
    return Export(
        {
            "steps": [],
            "score": {
                "kind": "trees",
                "trees": len(trees),
                "input": "float32",
                "finder": "onnxruntime" if tables is None else "bitvectors",
                "mean": mean,
                "walked": nodes is not None,
            },
            "decide": decide,
        },
        arrays,
        None if tables is not None else leaf_finder(trees, features),
        {int(f): np.unique(threshold[feature == f]) for f in np.unique(feature)},
    )


def _plain(classes: Any) -> Array:
    """Class labels as an array that is written without pickle."""
    array = np.asarray(classes)
    if array.dtype.kind == "O" and all(type(label) is str for label in array):
        return array.astype(str)
    if array.dtype.kind not in "biufU":
        raise NotExportable("Its labels are neither numbers nor texts.")
    return array


def _name(model: Any) -> str:
    return type(model).__name__


_EXPORTERS: Mapping[str, Callable[[Any], Iterator[Export]]] = {
    "ForestClassifier": _bagged,
    "ForestRegressor": _bagged,
    "DecisionTreeClassifier": _bagged,
    "DecisionTreeRegressor": _bagged,
    "BaseGradientBoosting": _boosted,
    "LinearClassifierMixin": _linear,
    "LinearModel": _linear,
    "BaseSGDRegressor": _linear,
}
"""By the name of a base class of scikit-learn's."""
