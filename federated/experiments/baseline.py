"""The linear baseline: TF-IDF of character 1- to 3-grams and logistic regression, of scikit-learn.

Nothing else in the project uses scikit-learn; `make experiment-model` installs it.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from federated.experiments.corpus import Corpus, Review
from federated.experiments.progress import Advance
from federated.experiments.scores import score
from ml.label_set import LABELS
from ml.metrics import evaluate_predictions

STRENGTHS: Final = (4.0, 16.0, 64.0)  # C, the inverse of the regularisation, of which validation chooses one
STEPS: Final = 1 + len(STRENGTHS)


def is_installed() -> bool:
    """Whether scikit-learn is there."""
    return importlib.util.find_spec("sklearn") is not None


def measure_baseline(corpus: Corpus, advance: Advance) -> dict[str, Any]:
    """Fit on the training samples for each of STRENGTHS, and score the one that is best on the validation samples."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    began = time.perf_counter()
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2)
    features = vectorizer.fit_transform(texts_of(corpus.train))
    validation, test = (vectorizer.transform(texts_of(part)) for part in (corpus.validation, corpus.test))
    advance(1)
    tried: list[dict[str, Any]] = []
    for strength in STRENGTHS:
        classifier = LogisticRegression(C=strength, max_iter=1000).fit(features, classes_of(corpus.train))
        tried.append(
            {
                "C": strength,
                "validation": score(
                    evaluate_predictions(classes_of(corpus.validation), classifier.predict(validation))
                ),
                "test": score(evaluate_predictions(classes_of(corpus.test), classifier.predict(test))),
            }
        )
        advance(1 + len(tried))
    best = max(tried, key=lambda one: float(one["validation"]["macro_f1"]))
    return {
        **best,
        "validation_macro_f1_by_C": {str(one["C"]): one["validation"]["macro_f1"] for one in tried},
        "features": int(features.shape[1]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def texts_of(reviews: Sequence[Review]) -> list[str]:
    """Give the texts of reviews."""
    return [review.example.text for review in reviews]


def classes_of(reviews: Sequence[Review]) -> np.ndarray:
    """Give the class indices of reviews, (reviews,)."""
    return np.array([LABELS.index(review.example.label) for review in reviews], dtype=np.int64)
