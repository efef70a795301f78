"""After a certificate was shipped: are rows still like those that it rests on, and does it still hold?

`Monitor` watches the risk and says when the certificate has expired; `exchangeable` compares two sets of
rows, `Martingale` a stream with the calibration. All but `exchangeable` may be asked after every row.
"""

from bayesprune.certify.monitor.exchangeable import TwoSample, exchangeable, permutation_test, scores_of
from bayesprune.certify.monitor.expiry import Monitor
from bayesprune.certify.monitor.martingale import Martingale
from bayesprune.certify.monitor.watched import Watched

__all__ = ["Martingale", "Monitor", "TwoSample", "Watched", "exchangeable", "permutation_test", "scores_of"]
