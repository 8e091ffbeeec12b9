"""Vectors of tokens from elsewhere, with which an embedding begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect
from fastrnn.models._data import Vocabulary
from fastrnn.models._inputs import IN_WORDS, array_of, tokens

Array = NDArray[Any]
WANTED = "a dict of vectors by token, a pair (vectors [V, E], tokens) or a fitted LanguageModel"


class Given(NamedTuple):
    """Tokens with their vectors, and the recurrent layers behind them where there are any."""

    tokens: list[Any]
    vectors: Array
    layers: Any = None


def is_embedding(value: Any) -> bool:
    """Return whether `value` is of a kind that `read` takes."""
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair or isinstance(value, Mapping) or hasattr(value, "modules_") or _keyed(value)


def read(embedding: Any, kind: str) -> Given:
    """Return tokens and vectors of what a model takes as `embedding`, for sequences of a kind of tokens."""
    layers = None
    if hasattr(embedding, "modules_"):
        config = embedding.config_
        fits = "text" in config and "rnn" in embedding.modules_
        expect(fits, "embedding", WANTED, f"a {type(embedding).__name__}", TypeError)
        got = f"one of {IN_WORDS.get(config['kind'], config['kind'])}"
        expect(config["kind"] == kind, "embedding", f"a LanguageModel of {IN_WORDS[kind]}, as X is", got)
        known = config["vocabulary"][1:]
        vectors = embedding.modules_["embedding"].params["weight"][1:]
        layers = embedding.modules_["rnn"]
    elif _keyed(embedding):
        known, vectors = embedding.index_to_key, embedding.vectors
    elif isinstance(embedding, Mapping):
        known, vectors = list(embedding), list(embedding.values())
    else:
        vectors, known = embedding
    known = [t for t in tokens("embedding", [t for t in known if t is not None])]
    matrix = array_of("embedding", vectors, "vectors [V, E]")
    fits = matrix.ndim == 2 and matrix.dtype.kind in "fiu" and matrix.size > 0
    expect(fits, "embedding", "vectors [V, E] of numbers", f"{matrix.dtype} of shape {matrix.shape}")
    expect(len(matrix) == len(known), "embedding", f"a token for each of {len(matrix)} vectors", len(known))
    expect(len(set(known)) == len(known), "embedding", "every token once", "some twice")
    matrix = matrix.astype(np.float64)
    expect(np.isfinite(matrix).all(), "embedding", "finite numbers", "NaN or infinity")
    return Given(known, matrix, layers)


def extended(vocabulary: Vocabulary, given: Given) -> Vocabulary:
    """Return the vocabulary with the tokens that have vectors, though they do not occur in the data."""
    return Vocabulary([*vocabulary, *(t for t in given.tokens if t not in vocabulary.places)])


def fill(modules: Mapping[str, Any], vocabulary: Vocabulary, given: Given) -> None:
    """Let the modules begin with the vectors, and with the recurrent layers if there are any.

    Tokens without a vector keep what was drawn for them, in the spread of the vectors.
    """
    table = modules["embedding"].params["weight"]
    table *= given.vectors.std() or 1.0
    table[[vocabulary.places[t] for t in given.tokens]] = given.vectors
    if given.layers is None:
        return
    own, theirs = modules["rnn"], given.layers
    sizes = [(type(r).__name__, r.hidden_size, r.num_layers) for r in (own, theirs)]
    wanted = "a LanguageModel with recurrent layers of {}, hidden_size={}, num_layers={}".format(*sizes[0])
    expect(sizes[0] == sizes[1], "embedding", wanted, "{}, {}, {}".format(*sizes[1]))
    for name, weights in own.params.items():
        # Above the first layer, layers of two directions read both, and cannot begin with those of one.
        if name in theirs.params and theirs.params[name].shape == weights.shape:
            weights[...] = theirs.params[name]


def _keyed(value: Any) -> bool:
    """Return whether `value` has tokens and vectors as the KeyedVectors of gensim and ``fastrnn.text`` have."""
    return hasattr(value, "index_to_key") and hasattr(value, "vectors")
