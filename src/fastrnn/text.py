"""Tools around text for the models: words, vocabularies, sub-words, word vectors and alignments.

They are thin: sub-words are those of the package ``tokenizers``, and word vectors are made with SciPy and scikit-learn
(``pip install 'fastrnn[text]'``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import _size, expect, number
from fastrnn.io import PathLike
from fastrnn.models._alignment import ibm1
from fastrnn.models._data import encode
from fastrnn.models._data import vocabulary as known_tokens
from fastrnn.models._inputs import all_tokens

Array = NDArray[Any]

__all__ = ["Subwords", "WordVectors", "align", "vocabulary", "word_vectors", "words"]

UNKNOWN = "<unk>"  # what stands for a character that the training texts of sub-words do not have
_WORDS = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


def words(text: str, *, lower: bool = False) -> list[str]:
    """Return the words and punctuation marks of a text, in order.

    Examples
    --------
    >>> words("Don't panic: it's well-known.", lower=True)
    ["don't", 'panic', ':', "it's", 'well-known', '.']
    """
    expect(isinstance(text, str), "text", "a str", type(text).__name__, TypeError)
    return _WORDS.findall(text.lower() if lower else text)


def vocabulary(
    texts: Iterable[Iterable[Any]], *, min_count: int = 1, max_size: int | None = None
) -> list[Any]:
    """Return the tokens of texts, the most frequent first.

    Parameters
    ----------
    texts : iterable of sequences of tokens
        a str is a sequence of characters.
    min_count : int
        leaves rarer tokens out.
    max_size : int, optional
        leaves out all but this many of the most frequent ones.

    Examples
    --------
    >>> vocabulary(["to be or not to be".split()], min_count=2)
    ['be', 'to']
    """
    expect(not isinstance(texts, str), "texts", "a list of texts", "one str", TypeError)
    known = known_tokens(texts, (), _size("min_count", min_count))
    return list(known[: None if max_size is None else _size("max_size", max_size)])


def align(X: Sequence[Any], y: Sequence[Any], *, rounds: int = 5) -> list[Array]:
    """Return for each pair of sequences which token of `X` each token of `y` comes from, by IBM model 1.

    Expectation maximisation of lexical translation probabilities (Brown et al. 1993). It takes a few seconds for tens
    of thousands of sentences.

    Parameters
    ----------
    X, y : lists of sequences of tokens
        of the same number.
    rounds : int
        of expectation maximisation.

    Returns
    -------
    list of arrays [T, S]
        probabilities for the T tokens of a sequence of `y` and the S tokens of its partner. Rows add up to at most 1;
        what is left is the probability that a token comes from none.

    Examples
    --------
    >>> pairs = [("das Haus", "the house"), ("das Buch", "the book"), ("ein Buch", "a book")]
    >>> X, y = ([side.split() for side in sides] for sides in zip(*pairs))
    >>> align(X, y, rounds=20)[0].argmax(axis=1)
    array([0, 1])
    """
    sides = [all_tokens(name, side)[0] for name, side in (("X", X), ("y", y))]
    expect(len(sides[0]) == len(sides[1]), "y", f"one for each of the {len(sides[0])} of X", len(sides[1]))
    known = [known_tokens(side, (None,)) for side in sides]
    coded = [[encode(s, tokens) for s in side] for side, tokens in zip(sides, known, strict=True)]
    return ibm1(coded[0], coded[1], _size("rounds", rounds))


class WordVectors:
    """Vectors by token, with the attributes of gensim's KeyedVectors that matter; made by `word_vectors`.

    Attributes
    ----------
    index_to_key : list
        tokens.
    key_to_index : dict
        the place of each token.
    vectors : float32 [V, E]
    """

    def __init__(self, index_to_key: Sequence[Any], vectors: Array) -> None:
        self.index_to_key, self.vectors = list(index_to_key), np.asarray(vectors)
        expect(self.vectors.ndim == 2, "vectors", "shape [V, E]", self.vectors.shape)
        n = len(self.index_to_key)
        expect(len(self.vectors) == n, "vectors", f"one for each of {n} tokens", len(self.vectors))
        self.key_to_index = {token: i for i, token in enumerate(self.index_to_key)}

    def __getitem__(self, token: Any) -> Array:
        return np.asarray(self.vectors[self.key_to_index[token]])

    def __contains__(self, token: Any) -> bool:
        return token in self.key_to_index

    def __iter__(self) -> Iterator[Any]:
        return iter(self.index_to_key)

    def __len__(self) -> int:
        return len(self.index_to_key)

    def most_similar(self, token: Any, n: int = 10) -> list[tuple[Any, float]]:
        """Return the `n` tokens whose vectors have the greatest cosine with that of `token`, and these cosines."""
        expect(token in self, "token", "one that has a vector", repr(token))
        norms = np.linalg.norm(self.vectors, axis=1)
        cosines = self.vectors @ self[token] / np.maximum(norms * np.linalg.norm(self[token]), 1e-30)
        order = [i for i in np.argsort(-cosines, kind="stable") if i != self.key_to_index[token]]
        return [(self.index_to_key[i], float(cosines[i])) for i in order[: _size("n", n)]]

    def __repr__(self) -> str:
        return f"WordVectors({len(self)} tokens, {self.vectors.shape[1]} values each)"


def word_vectors(
    texts: Sequence[Any],
    size: int = 128,
    *,
    window: int = 4,
    min_count: int = 2,
    smoothing: float = 0.75,
    random_state: int = 0,
) -> WordVectors:
    """Return vectors of tokens from the company that they keep in texts, which need no labels.

    Positive pointwise mutual information of tokens that occur near each other, and its singular value decomposition
    (Levy and Goldberg 2014). They are for the parameter ``embedding`` of `SequenceClassifier` and its relatives. Leave
    out the texts on which a model is tested.

    Parameters
    ----------
    texts : list of sequences of tokens
    size : int
        of a vector; fewer where there are fewer tokens.
    window : int
        how many tokens away a neighbour may be.
    min_count : int
        rarer tokens get no vector.
    smoothing : float
        power to which the counts of neighbours are raised, which makes rare ones weigh less (Levy et al. 2015).
    random_state : int
        seed of the decomposition.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    """
    try:
        from scipy import sparse
        from sklearn.utils.extmath import randomized_svd
    except ImportError as error:
        raise ImportError("word_vectors needs scikit-learn: pip install 'fastrnn[text]'") from error
    size, window = _size("size", size), _size("window", window)
    expect(0 < number("smoothing", smoothing) <= 1, "smoothing", "0 < smoothing <= 1", smoothing)
    sequences, _ = all_tokens("texts", texts)
    known = known_tokens(sequences, (None,), _size("min_count", min_count))
    expect(len(known) > 1, "texts", f"a token that is there at least {min_count} times (min_count)", "none")
    ids = np.concatenate([encode(s, known) for s in sequences]) - 1  # -1: none
    owner = np.repeat(np.arange(len(sequences)), list(map(len, sequences)))
    n = len(known) - 1
    counts: Any = sparse.csr_matrix((n, n))
    for away in range(1, window + 1):
        a, b = ids[:-away], ids[away:]
        near = (owner[:-away] == owner[away:]) & (a >= 0) & (b >= 0)
        counts = counts + sparse.coo_matrix((np.ones(near.sum()), (a[near], b[near])), (n, n)).tocsr()
    counts = (counts + counts.T).tocoo()
    rows, columns = (np.asarray(counts.sum(axis=axis)).ravel() for axis in (1, 0))
    columns = columns**smoothing
    with np.errstate(divide="ignore"):
        p = counts.data * columns.sum() / (rows[counts.row] * columns[counts.col])
        positive = np.maximum(np.log(p), 0)
    matrix = sparse.csr_matrix((positive, (counts.row, counts.col)), (n, n))
    left, values, _ = randomized_svd(matrix, min(size, n), random_state=random_state)
    return WordVectors(known[1:], (left * np.sqrt(values)).astype(np.float32))


class Subwords:
    """Sub-words of texts, by byte-pair encoding (Sennrich et al. 2016) of the package ``tokenizers``.

    A model that reads sub-words can read every word. `train` makes them from texts, `encode` cuts a text, and `decode`
    puts it together again. Spaces are part of the sub-words (``▁``); punctuation marks and digits stand alone.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer

    Examples
    --------
    >>> tool = Subwords.train(["low lower lowest", "new newer newest"] * 20, 40)  # doctest: +SKIP
    >>> tool.encode("lowest")  # doctest: +SKIP
    ['▁lowest']
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int = 2000, *, min_count: int = 2) -> Subwords:
        """Learn sub-words from texts.

        Parameters
        ----------
        texts : iterable of str
        vocabulary_size : int
            number of sub-words, with the single characters of the texts.
        min_count : int
            pairs of sub-words that are rarer are not merged.
        """
        expect(not isinstance(texts, str), "texts", "a list of str", "one str", TypeError)
        package = _tokenizers()
        tokenizer = package.Tokenizer(package.models.BPE(unk_token=UNKNOWN))
        before, after = package.pre_tokenizers, package.decoders
        parts = [before.Metaspace(), before.Punctuation(), before.Digits(individual_digits=True)]
        tokenizer.pre_tokenizer, tokenizer.decoder = before.Sequence(parts), after.Metaspace()
        trainer = package.trainers.BpeTrainer(
            vocab_size=_size("vocabulary_size", vocabulary_size),
            min_frequency=_size("min_count", min_count),
            special_tokens=[UNKNOWN],
            show_progress=False,
        )
        tokenizer.train_from_iterator(map(_text, texts), trainer)
        return cls(tokenizer)

    def encode(self, text: str) -> list[str]:
        """Return the sub-words of a text: what the models take as a sequence of tokens."""
        return list(self.tokenizer.encode(_text(text)).tokens)

    def decode(self, tokens: Iterable[str]) -> str:
        """Return the text that sub-words make up."""
        return str(self.tokenizer.decoder.decode(list(tokens)))

    @property
    def vocabulary(self) -> list[str]:
        """All sub-words."""
        return sorted(self.tokenizer.get_vocab(), key=self.tokenizer.get_vocab().__getitem__)

    def save(self, path: PathLike) -> None:
        """Write a JSON file, which ``tokenizers.Tokenizer.from_file`` reads too."""
        self.tokenizer.save(os.fspath(path))

    @classmethod
    def load(cls, path: PathLike) -> Subwords:
        """Return what `save` wrote, or the tokenizer of another file of ``tokenizers``."""
        package = _tokenizers()
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            return cls(package.Tokenizer.from_str(text))
        except Exception as error:  # that of the package is a plain Exception
            raise ValueError(f"{os.fspath(path)}: not a file of tokenizers: {error}") from error

    def __repr__(self) -> str:
        return f"Subwords({self.tokenizer.get_vocab_size()})"


def _text(text: Any) -> str:
    expect(isinstance(text, str), "text", "a str", type(text).__name__, TypeError)
    return str(text)


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError("Subwords needs tokenizers: pip install 'fastrnn[text]'") from error
    import tokenizers.decoders
    import tokenizers.models
    import tokenizers.pre_tokenizers
    import tokenizers.trainers

    return tokenizers
