"""Predictions that average over what is not known: masks, weights, and several fits."""

from bayesprune.prediction.predict import predict
from bayesprune.prediction.prediction import Prediction
from bayesprune.prediction.temperature import temperature

__all__ = ["Prediction", "predict", "temperature"]
