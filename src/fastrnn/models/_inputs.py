"""What models take: lists of sequences, of tokens or of numbers. It is checked here, and errors name the argument."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._arrays import expect, readable, refuse_masked

Array = NDArray[Any]

# Kinds of sequences. A model remembers the kind that fit saw.
CHARACTERS, STRINGS, INTEGERS, MIXED, NUMBERS = "characters", "strings", "integers", "mixed", "numbers"
IN_WORDS = {
    CHARACTERS: "a str",
    STRINGS: "a list of str",
    INTEGERS: "a list of int",
    MIXED: "a list of str and int",
    NUMBERS: "numbers",
}
TOKENS = "tokens that are str or int"


def array_of(name: str, value: Any, expected: str = "an array") -> Array:
    """Return anything that NumPy reads as an array of any dtype, unless some of it is masked."""
    expect(not hasattr(value, "toarray"), name, "a dense array", "a sparse one", TypeError)
    return readable(name, value, expected)


def items(name: str, X: Any, expected: str = "an array or a list of sequences") -> list[Any]:
    """Return the elements of a list, or the rows of an array or a DataFrame, by position and not by label."""
    got = f"{type(X).__name__}, maybe sparse" if hasattr(X, "toarray") else type(X).__name__
    if isinstance(X, (str, bytes)):
        got = f"one {got}, which is a single sequence"
    bad = isinstance(X, (str, bytes, Mapping, Set)) or hasattr(X, "toarray")
    listed = hasattr(X, "__len__") or hasattr(X, "__array__")
    expect(listed and not bad, name, expected, got, TypeError)
    if not hasattr(X, "__array__"):
        return list(X)
    array = array_of(name, X)
    expect(array.ndim > 0, name, expected, f"shape {array.shape}", TypeError)
    return list(array)


def take_rows(X: Any, places: Array) -> Any:
    """Return some elements of what `items` takes, as the same kind of thing."""
    if hasattr(X, "iloc"):
        return X.iloc[places]
    return np.asarray(X)[places] if hasattr(X, "__array__") else [X[i] for i in places.tolist()]


def numbers(name: str, values: Any, expected: str = "numbers [T] or [T, D]", *, nan: bool = False) -> Array:
    """Return numbers [n] or [n, K] as float64 [n, K]; `expected` says in messages what they are.

    With `nan`, NaN stands for a missing number.
    """
    array = array_of(name, values, expected)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except TypeError as error:
            raise TypeError(f"{name}: argument must be a string or a real number: {error}") from error
        except ValueError as error:
            raise ValueError(f"{name}: expected {expected}: {error}") from error
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported")
    got = f"an array of {array.dtype}" if array.dtype.kind not in "fiub" else f"shape {array.shape}"
    if array.ndim < 1 and array.dtype.kind in "fiub":
        got += ". Reshape your data"
    expect(array.dtype.kind in "fiub" and array.ndim in (1, 2), name, expected, got)
    if nan:
        expect(not np.isinf(array).any(), name, "finite numbers or NaN", "infinity")
    else:
        expect(np.isfinite(array).all(), name, "finite numbers", "NaN or infinity")
    return np.asarray(array[:, None] if array.ndim == 1 else array, np.float64)


def tokens(name: str, sequence: Any) -> Any:
    """Return a str as it is, and other sequences as a list of str and int."""
    if isinstance(sequence, str):
        return sequence
    bad = not hasattr(sequence, "__len__") or isinstance(sequence, (Mapping, Set))
    expect(not bad, name, f"a sequence of {TOKENS}", type(sequence).__name__, TypeError)
    if hasattr(sequence, "__array__"):
        array = array_of(name, sequence)
        expect(array.ndim == 1, name, f"a sequence of {TOKENS}, [T]", f"shape {array.shape}")
        sequence = array.tolist()
    refuse_masked(name, list(sequence))
    known = [t.item() if isinstance(t, (np.integer, np.str_)) else t for t in sequence]
    odd = sorted({type(t).__name__ for t in known if not isinstance(t, (str, int)) or isinstance(t, bool)})
    expect(not odd, name, TOKENS, ", ".join(odd), TypeError)
    return known


def expect_no_target(y: Any) -> None:
    """Raise if there is a target where a model learns from `X` alone."""
    got = f"{type(y).__name__}: this model learns from X alone"
    expect(y is None, "y", "None", got, TypeError)


def kind_of(sequence: Any) -> str:
    """Return the kind of what `tokens` returned."""
    if isinstance(sequence, str):
        return CHARACTERS
    texts = {isinstance(t, str) for t in sequence}
    return MIXED if len(texts) == 2 else STRINGS if True in texts else INTEGERS


def expect_kind(name: str, sequence: Any, kind: str | None) -> None:
    """Raise unless tokens are of the kind that fit saw; those of an empty sequence are of any."""
    if kind is None or not len(sequence):
        return
    own = kind_of(sequence)
    fits = own == kind or (kind == MIXED and own in (STRINGS, INTEGERS))
    expect(fits, name, f"{IN_WORDS.get(kind, kind)}, as in fit", IN_WORDS[own])


def all_tokens(name: str, X: Any, kind: str | None = None) -> tuple[list[Any], str | None]:
    """Return the sequences of a list as `tokens` does, and their kind, which must be `kind` where that is given."""
    sequences = [tokens(f"{name}[{i}]", s) for i, s in enumerate(items(name, X))]
    if kind is not None:
        for i, s in enumerate(sequences):
            expect_kind(f"{name}[{i}]", s, kind)
        return sequences, kind
    found: dict[str, int] = {}
    for i, s in enumerate(sequences):
        if len(s):
            found.setdefault(kind_of(s), i)
    if CHARACTERS in found and len(found) > 1:
        other, i = next((k, i) for k, i in found.items() if k != CHARACTERS)
        both = f"a str at {name}[{found[CHARACTERS]}] and {IN_WORDS[other]} at {name}[{i}]"
        raise ValueError(f"{name}: expected sequences of one kind, got {both}")
    if not found:
        return sequences, CHARACTERS if any(isinstance(s, str) for s in sequences) else None
    return sequences, next(iter(found)) if len(found) == 1 else MIXED


def sequences_of(X: Any, inputs: str, kind: str | None = None) -> tuple[list[Any], str]:
    """Return sequences of tokens, or of numbers as float64 [T, D], and their kind.

    `inputs` says which of both they are. With "auto", str are tokens and floats are numbers, and integers are refused,
    because they may be either. Where `kind` is given, fit has seen it, and it decides.
    """
    sequences = items("X", X)
    if kind is None and inputs == "auto":
        if any(map(_has_str, sequences)):
            inputs = "tokens"
        else:
            arrays = [array_of(f"X[{i}]", s, "numbers [T] or [T, D]") for i, s in enumerate(sequences)]
            filled = [a for a in arrays if a.size]
            wanted = "inputs='tokens' if integers are token ids, or inputs='numbers'"
            expect(not filled or not all(map(_may_be_ids, filled)), "X", wanted, "integers and inputs='auto'")
            inputs = "numbers"
    elif kind is not None:
        _expect_tokens_or_numbers(sequences, kind)
        inputs = "numbers" if kind == NUMBERS else "tokens"
    if inputs == "tokens":
        found, seen = all_tokens("X", sequences, kind)
        return found, seen or INTEGERS
    expect(not any(map(_has_str, sequences)), "X", "sequences of numbers (inputs='numbers')", "tokens")
    return [numbers(f"X[{i}]", s) for i, s in enumerate(sequences)], NUMBERS


def _expect_tokens_or_numbers(sequences: list[Any], kind: str) -> None:
    for s in sequences:
        if kind == NUMBERS:
            expect(not _has_str(s), "X", "sequences of numbers, as in fit", "tokens")
        elif isinstance(s, str):
            continue
        elif hasattr(s, "__array__"):
            array = np.asarray(s)
            fits = not array.size or (array.dtype.kind != "f" and array.ndim == 1)
            expect(fits, "X", "sequences of tokens, as in fit", "numbers")
        elif hasattr(s, "__len__"):
            odd = any(isinstance(t, (float, np.floating, list, tuple, np.ndarray)) for t in s)
            expect(not odd, "X", "sequences of tokens, as in fit", "numbers")


def _has_str(sequence: Any) -> bool:
    if isinstance(sequence, str):
        return True
    if hasattr(sequence, "__array__"):
        array = np.asarray(sequence)
        return array.dtype.kind in "UT" or (
            array.dtype.kind == "O" and array.size > 0 and isinstance(array.flat[0], str)
        )
    return isinstance(sequence, Sequence) and any(isinstance(t, str) for t in sequence)


def _may_be_ids(array: Array) -> bool:
    if array.ndim != 1 or array.dtype.kind not in "iuO":
        return False
    return array.dtype.kind != "O" or all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in array
    )


# -- names of features, as scikit-learn keeps them -----------------------------------------------------------


def names_of(X: Any) -> list[str] | None:
    """Return the names of a DataFrame's columns, if they are str, else None."""
    columns = getattr(X, "columns", None)
    if columns is None or not hasattr(X, "__array__"):
        return None
    texts = [isinstance(c, str) for c in columns]
    if any(texts) and not all(texts):
        raise TypeError("X: expected names of columns that are all str, got str and others")
    return [str(c) for c in columns] if texts and all(texts) else None


def common_names(parts: Sequence[Any]) -> list[str] | None:
    """Return the names of the columns of all DataFrames among `parts`, which must be the same."""
    first: list[str] | None = None
    for i, part in enumerate(parts):
        names = names_of(part)
        if first is None:
            first = names
        elif names is not None and names != first:
            raise ValueError(f"X[{i}]: expected the columns {few(first)}, as before it, got {few(names)}")
    return first


def check_names(owner: str, names: list[str] | None, seen: list[str] | None) -> None:
    """Compare the names of columns with those that fit saw, with the errors and warnings of scikit-learn."""
    if names is None and seen is None:
        return
    if seen is None:
        warnings.warn(f"X has feature names, but {owner} was fitted without feature names", stacklevel=4)
    elif names is None:
        text = f"X does not have valid feature names, but {owner} was fitted with feature names"
        warnings.warn(text, stacklevel=4)
    elif names != seen:
        text = "X: The feature names should match those that were passed during fit.\n"
        for title, odd in (
            ("unseen at fit time", sorted(set(names) - set(seen))),
            ("seen at fit time, yet now missing", sorted(set(seen) - set(names))),
        ):
            if odd:
                dots = ["- ...\n"] * (len(odd) > 5)
                text += f"Feature names {title}:\n" + "".join([f"- {n}\n" for n in odd[:5]] + dots)
        if set(names) == set(seen):
            text += "Feature names must be in the same order as they were in fit.\n"
        raise ValueError(text)


def few(values: Sequence[Any], most: int = 5) -> str:
    """Return a list as text, cut short where it is long."""
    if len(values) <= most:
        return str(list(values))
    return "[" + ", ".join(map(repr, values[:most])) + f", ... {len(values)} in all]"
