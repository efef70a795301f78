#!/usr/bin/env bash
# What ArviZ says of draws that are 0 or 1, as those of gates are, before and after its 1.x series.
#
# Versions: arviz 0.23.4 and 1.3.0, numpy 2.4.6, scipy 1.17.1, pandas 3.1.1, xarray 2026.9.0; Python 3.12 or newer.
# Expected: the table of a posterior reads the same in both series; a variable that never moved has no effective
#     sample size (R's package posterior gives NA); no number between 0 and 1 has a standard deviation above 0.5;
#     draws may be bool.
# Seen: both series count every draw of a variable that never moved as effective (2,000 of 2,000), beside an R-hat
#     that is not a number, so that neither the least size nor the largest R-hat of a table shows it.
#     1.3.0 prints the deviation of a gate on which chains disagree as 1 (the column has 0.5001), for it rounds what
#     it prints by the Monte Carlo error; its interval is one of 89 %, equal tails, where it was one of 94 %, highest
#     density, under other names; and it raises a TypeError for draws of type bool, which 0.23.4 takes.
# PYTHON=... names another interpreter.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/look.py" <<'END'
import warnings

warnings.simplefilter("ignore")
import arviz as az
import numpy as np


def summary(**draws):
    new = int(az.__version__.split(".")[0]) >= 1
    return az.summary(az.from_dict({"posterior": draws} if new else draws))


print("arviz", az.__version__)
split = np.zeros((4, 500))
split[1::2] = 1.0  # two chains keep a unit, two remove it
told = summary(split=split, stuck=np.ones((4, 500)))
print(told[["mean", "sd", "ess_bulk"]].to_string())
print("sd of split in the column: %.4f" % float(told["sd"]["split"]))
print("R-hat of stuck:", float(told["r_hat"]["stuck"]))
print("interval:", *[name for name in told.columns if name.startswith(("hdi", "eti"))])
try:
    print("bool: mean %.1f" % float(summary(split=split.astype(bool))["mean"].iloc[0]))
except TypeError:
    print("bool: TypeError")
END

for version in 0.23.4 1.3.0; do
  "${PYTHON:-python3.12}" -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip install --quiet "arviz==$version" numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 xarray==2026.9.0
  "$folder/venv/bin/python" "$folder/look.py" | tee -a "$folder/seen"
  rm -rf "$folder/venv"
done

diff "$folder/seen" - <<'END' || { echo "That is no longer what was seen."; exit 1; }
arviz 0.23.4
       mean   sd  ess_bulk
split   0.5  0.5       4.0
stuck   1.0  0.0    2000.0
sd of split in the column: 0.5000
R-hat of stuck: nan
interval: hdi_3% hdi_97%
bool: mean 0.5
arviz 1.3.0
      mean sd ess_bulk
split  0.5  1        4
stuck    1  0     2000
sd of split in the column: 0.5001
R-hat of stuck: nan
interval: eti89_lb eti89_ub
bool: TypeError
END
