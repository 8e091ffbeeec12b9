"""The policies of fastrnn.torch.sb3 give what sb3-contrib's give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")

from sb3_contrib import RecurrentPPO  # noqa: E402
from sb3_contrib.ppo_recurrent import policies as stock  # noqa: E402

import fastrnn.torch  # noqa: E402
from fastrnn.torch import sb3  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
VECTOR = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
IMAGE = gymnasium.spaces.Box(0, 255, (3, 36, 36), np.uint8)
SPACES = {
    "MlpLstmPolicy": VECTOR,
    "CnnLstmPolicy": IMAGE,
    "MultiInputLstmPolicy": gymnasium.spaces.Dict({"a": VECTOR, "b": gymnasium.spaces.Discrete(3)}),
}
ACTIONS = gymnasium.spaces.Discrete(2)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_policies_evaluate_alike(name: str, shared: bool) -> None:
    options = {"lstm_hidden_size": 16, "shared_lstm": shared, "enable_critic_lstm": not shared}
    policies = []
    for module in (stock, sb3):
        torch.manual_seed(0)
        policies.append(getattr(module, name)(SPACES[name], ACTIONS, lambda _: 1e-3, **options))
    theirs, own = policies
    assert isinstance(own, type(theirs))
    assert isinstance(own.lstm_actor, fastrnn.torch.LSTM)
    own.load_state_dict(theirs.state_dict())
    n_seq, steps = 3, 7
    rng = np.random.default_rng(0)
    SPACES[name].seed(0)
    batch = [SPACES[name].sample() for _ in range(n_seq * steps)]
    observations, _ = theirs.obs_to_tensor(
        {k: np.stack([o[k] for o in batch]) for k in batch[0]}
        if isinstance(batch[0], dict)
        else np.stack(batch)
    )
    starts = torch.from_numpy((rng.random(n_seq * steps) < 0.3).astype(np.float32))
    state = torch.from_numpy(rng.standard_normal((1, n_seq, 16)).astype(np.float32))
    states = stock.RNNStates((state, state + 1), (state - 1, state)) if hasattr(stock, "RNNStates") else None
    if states is None:
        from sb3_contrib.common.recurrent.type_aliases import RNNStates

        states = RNNStates((state, state + 1), (state - 1, state))
    actions = torch.zeros(n_seq * steps)
    results = []
    for policy in policies:
        values, log_prob, entropy = policy.evaluate_actions(observations, actions, states, starts)
        (values.sum() + log_prob.sum() + entropy.sum()).backward()
        results.append(
            [values, log_prob, entropy, *(p.grad for p in policy.parameters() if p.grad is not None)]
        )
    assert len(results[0]) == len(results[1])
    for one, other in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(results[1][:3], results[0][:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_process_sequence(seed: int) -> None:
    """Random starts, also at the first step, and numbers of sequences and steps, one of each included."""
    rng = np.random.default_rng(seed)
    n_seq, steps = int(rng.integers(1, 5)), int(rng.integers(1, 9)) if seed else 1
    theirs = torch.nn.LSTM(3, 5)
    own = fastrnn.torch.LSTM(3, 5)
    own.load_state_dict(theirs.state_dict())
    features, state = torch.randn(n_seq * steps, 3), (torch.randn(1, n_seq, 5), torch.randn(1, n_seq, 5))
    starts = torch.from_numpy((rng.random(n_seq * steps) < 0.3).astype(np.float32))
    process = stock.RecurrentActorCriticPolicy._process_sequence
    want = process(features, state, starts, theirs)
    got: Any = sb3.MlpLstmPolicy._process_sequence(features, state, starts, own)
    for one, other in zip((got[0], *got[1]), (want[0], *want[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    reverted = sb3.MlpLstmPolicy._process_sequence(features, state, starts, theirs)
    assert torch.equal(reverted[0], want[0])


def test_training_saving_and_loading(tmp_path: Any) -> None:
    model = RecurrentPPO(
        sb3.MlpLstmPolicy, "CartPole-v1", n_steps=32, batch_size=16, n_epochs=1, seed=0, device="cpu"
    )
    before = model.policy.lstm_actor.weight_hh_l0.detach().clone()
    model.learn(64)
    assert not torch.equal(model.policy.lstm_actor.weight_hh_l0, before)
    model.save(tmp_path / "model")
    loaded = RecurrentPPO.load(tmp_path / "model", device="cpu")
    assert isinstance(loaded.policy.lstm_actor, fastrnn.torch.LSTM)
    observation = np.zeros(4, np.float32)
    assert (
        loaded.predict(observation, deterministic=True)[0]
        == model.predict(observation, deterministic=True)[0]
    )
