"""The model server that runs beside each model, and what starts and holds it; imports nothing else of asgard."""

SERVER_REQUIREMENTS: tuple[str, ...] = (
    "httptools>=0.6",
    "numpy>=1.21",
    "orjson>=3.9",
    "pandas>=1.4",
    "uvloop>=0.17; sys_platform != 'win32'",
)
"""What the server needs beside a model and MLflow, as PEP 508 requirements. Low bounds, so that old pins satisfy them.

MLflow is not among them: a model comes with the one that logged it, `mlflow` or `mlflow-skinny`; they must not mix.
"""

COMPILED_REQUIREMENTS: tuple[str, ...] = ("onnxruntime>=1.19",)
"""What compiled trees need besides, where it fits the other requirements. Older releases do not run with NumPy 2."""

TRACING_REQUIREMENTS: tuple[str, ...] = ("opentelemetry-exporter-otlp-proto-http>=1.20",)
"""What spans of requests need besides, where a deploy asks for them."""

ARRAY_FLAVORS = frozenset({"sklearn", "xgboost", "lightgbm", "catboost"})
"""Flavours whose models, where they were fitted without column names, are best given arrays.

So they alone may have a compiled form, or else may predict the rows of several requests together.
"""

NUMBER_FLAVORS = frozenset({"xgboost", "lightgbm"})
"""Flavours whose models take missing numbers, and refuse frames with a column of objects."""

COMPILED = "compiled"
"""Folder in a bundle: about.json, what was found out about a compiled form of the model, and the files of the form."""
