"""Likelihoods: from a network's outputs to nats per row, always scaled by the rows of the data set."""

from bayesprune.likelihoods.base import Frame, Likelihood
from bayesprune.likelihoods.bernoulli import Bernoulli
from bayesprune.likelihoods.categorical import Categorical
from bayesprune.likelihoods.distilled import Distilled
from bayesprune.likelihoods.gaussian import Gaussian
from bayesprune.likelihoods.model_loss import ModelLoss
from bayesprune.likelihoods.own import Own
from bayesprune.likelihoods.poisson import Poisson
from bayesprune.likelihoods.teacher import Member

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distilled",
    "Frame",
    "Gaussian",
    "Likelihood",
    "Member",
    "ModelLoss",
    "Own",
    "Poisson",
]
