"""stats: intervals, exact tests, kappa and Holm's correction by statsmodels, scipy and scikit-learn.

Needs packages of its own: pip install scipy==1.16.3 statsmodels==0.14.6 scikit-learn==1.7.2
"""

import json
import pathlib

import numpy
import scipy
import sklearn
import statsmodels
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


def shares():
    out = []
    for hits, n in [(0, 1), (1, 1), (4, 6), (0, 10), (10, 10), (3, 17), (158, 300), (699, 1200), (5, 100000)]:
        low, high = proportion_confint(hits, n, alpha=0.05, method="wilson")
        out.append({"hits": hits, "n": n, "low": float(max(low, 0)), "high": float(min(high, 1))})
    return out


def tests():
    cases = [(0, 0), (0, 1), (1, 2), (0, 6), (5, 6), (3, 10), (40, 100), (12, 57), (480, 1000), (30, 3000)]
    return [{"k": k, "n": n, "p": float(binomtest(k, n).pvalue) if n else 1.0} for k, n in cases]


def kappas():
    out, rng = [], numpy.random.default_rng(7)
    for n, levels in [(6, 6), (50, 6), (200, 2), (500, 11)]:
        a = rng.integers(0, levels, n)
        b = numpy.clip(a + rng.integers(-1, 2, n), 0, levels - 1)
        kappa = cohen_kappa_score(a, b, weights="quadratic", labels=list(range(levels)))
        out.append({"a": a.tolist(), "b": b.tolist(), "levels": levels, "kappa": float(kappa)})
    return out


def holms():
    lists = [[0.04], [0.01, 0.04, 0.03], [0.5, 0.2, 0.9, 0.001, 0.02], [1.0, 1.0], [0.02, 0.02, 0.02, 0.6]]
    return [{"p": p, "holm": [float(x) for x in multipletests(p, method="holm")[1]]} for p in lists]


def main():
    folder = pathlib.Path(__file__).resolve().parent.parent / "golden" / "stats"
    folder.mkdir(exist_ok=True)
    versions = {m.__name__: m.__version__ for m in (numpy, scipy, sklearn, statsmodels)}
    data = {"versions": versions, "shares": shares(), "binomials": tests(), "kappas": kappas(), "holms": holms()}
    (folder / "stats.json").write_text(json.dumps(data) + "\n")


if __name__ == "__main__":
    main()
