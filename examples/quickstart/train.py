import mlflow
import mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

X, y = make_classification(n_samples=100, n_features=5, random_state=42)
with mlflow.start_run():
    model = RandomForestClassifier(n_estimators=10, random_state=42)
    model.fit(X, y)
    mlflow.log_param("n_estimators", 10)
    mlflow.log_metric("accuracy", model.score(X, y))
    mlflow.sklearn.log_model(model, "model")
