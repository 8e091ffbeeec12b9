"""Policies of sb3-contrib's RecurrentPPO whose LSTMs run in fastrnn's core.

They have the names, arguments and parameters of sb3-contrib's. Where episodes begin inside a batch, its own policies
loop over time in Python; these run the batch in one call. ``pip install 'fastrnn[torch]' sb3-contrib``.

    from sb3_contrib import RecurrentPPO
    from fastrnn.torch.sb3 import MlpLstmPolicy

    model = RecurrentPPO(MlpLstmPolicy, env)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

try:
    from sb3_contrib.common.recurrent import policies as _policies
except ImportError as error:
    raise ImportError(
        "fastrnn.torch.sb3 needs sb3-contrib: pip install 'fastrnn[torch]' sb3-contrib"
    ) from error

from fastrnn.torch._convert import convert
from fastrnn.torch.layers import Layer

__all__ = ["CnnLstmPolicy", "MlpLstmPolicy", "MultiInputLstmPolicy"]


class FastLstm:
    """What the policies share: their LSTMs are converted, and a batch is one call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        convert(self, verbose=False)

    @staticmethod
    def _process_sequence(
        features: Tensor, lstm_states: tuple[Tensor, Tensor], episode_starts: Tensor, lstm: Any
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run an LSTM over sequences that lie one behind the other: [n_seq * T, features] to [n_seq * T, hidden]."""
        if not isinstance(lstm, Layer):  # reverted
            return _policies.RecurrentActorCriticPolicy._process_sequence(  # type: ignore[no-any-return]
                features, lstm_states, episode_starts, lstm
            )
        n_seq = lstm_states[0].shape[1]
        x = features.reshape(n_seq, -1, lstm.input_size).transpose(0, 1)
        reset = (episode_starts.reshape(n_seq, -1) != 0).t()
        y, states = lstm(x, lstm_states, reset=reset)
        return y.transpose(0, 1).flatten(0, 1), states


class MlpLstmPolicy(FastLstm, _policies.RecurrentActorCriticPolicy):
    """As ``sb3_contrib``'s ``MlpLstmPolicy``, for vectors."""


class CnnLstmPolicy(FastLstm, _policies.RecurrentActorCriticCnnPolicy):
    """As ``sb3_contrib``'s ``CnnLstmPolicy``, for images."""


class MultiInputLstmPolicy(FastLstm, _policies.RecurrentMultiInputActorCriticPolicy):
    """As ``sb3_contrib``'s ``MultiInputLstmPolicy``, for dictionaries of observations."""
