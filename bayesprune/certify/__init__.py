"""Certificates: a bound on what a pruned network loses, which holds with a stated probability (Learn then
Test).

`certify` finds the sparsest certified network of a path, `verify` recomputes a certificate, `sign` says
whose it is; `monitor` watches it afterwards. The package is what `certify` is called by:
``bp.certify(network, rows, alpha=0.05)``.
"""

from bayesprune.certify import losses, monitor, paths, pvalues, rules
from bayesprune.certify.certificate import Certificate
from bayesprune.certify.certify import Certified, certify
from bayesprune.certify.hashes import hash_of_network, hash_of_rows, hash_of_weights
from bayesprune.certify.rows import CalibrationRows
from bayesprune.certify.signing import sign
from bayesprune.certify.training_rows import TrainingRows
from bayesprune.certify.verification import Check, Verification
from bayesprune.certify.verify import verify
from bayesprune.lazy import callable_room

__all__ = [
    "CalibrationRows", "Certificate", "Certified", "Check", "TrainingRows", "Verification", "certify",
    "hash_of_network", "hash_of_rows", "hash_of_weights", "losses", "monitor", "paths",
    "pvalues", "rules", "sign", "verify",
]  # fmt: skip

callable_room(__name__, "certify")
