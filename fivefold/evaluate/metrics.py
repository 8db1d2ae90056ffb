"""The metrics, over unit vectors: numpy, scipy and scikit-learn do the work.

Shapes: P pairs, Q queries, N passages, S texts, D hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import v_measure_score
from sklearn.neighbors import KNeighborsClassifier

from fivefold.vectors import FloatArray

Rows = npt.NDArray[np.int64]


def spearman(first: FloatArray, second: FloatArray, scores: Sequence[float]) -> float:
    """Rank correlation of cosines [P, D] x [P, D] with what people said [P]."""
    return float(spearmanr((first * second).sum(1), scores)[0])


def matched(left: FloatArray, right: FloatArray) -> float:
    """Share of texts whose nearest text on the other side is their translation, mean of both directions: [P, D] both."""
    cosines, rows = left @ right.T, np.arange(len(left))
    return float(((cosines.argmax(1) == rows).mean() + (cosines.argmax(0) == rows).mean()) / 2)


def ndcg10(queries: FloatArray, passages: FloatArray, gold: Rows) -> float:
    """nDCG at 10 where each query [Q, D] has one right passage of [N, D]: 1 / log2(rank + 1), 0 past the tenth."""
    return ndcg10_of(queries @ passages.T, gold)


def ndcg10_of(scores: FloatArray, gold: Rows) -> float:
    """The same from scores [Q, N]; ties count for the right passage."""
    ahead = (scores > scores[np.arange(len(gold)), gold][:, None]).sum(1)
    return float(np.where(ahead < 10, 1 / np.log2(ahead + 2), 0).mean())


def best_of_each(scores: FloatArray, owners: Rows) -> FloatArray:
    """Scores of chunks [Q, N], each of which has an owner [N] -> scores of the owners, each by its best chunk."""
    return np.stack([scores[:, owners == owner].max(1) for owner in range(int(owners.max()) + 1)], axis=1)


def linear_probe(train: FloatArray, train_labels: Sequence[str], test: FloatArray, test_labels: Sequence[str]) -> float:
    """Accuracy of logistic regression."""
    return float(LogisticRegression(max_iter=1000, C=10).fit(train, train_labels).score(test, test_labels))


def nearest_neighbours(
    train: FloatArray, train_labels: Sequence[str], test: FloatArray, test_labels: Sequence[str]
) -> float:
    """Accuracy of the vote of the five nearest training texts."""
    voters = KNeighborsClassifier(min(5, len(train_labels)), metric="cosine")
    return float(voters.fit(train, train_labels).score(test, test_labels))


def v_measure(vectors: FloatArray, labels: Sequence[str]) -> float:
    """Of k-means with as many clusters as there are labels: [S, D]."""
    found = KMeans(len(set(labels)), n_init=5, random_state=0).fit(vectors).labels_
    return float(v_measure_score(labels, found))
