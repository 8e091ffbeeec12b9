"""Recurrent PPO on CartPole without velocities: sb3-contrib's policy, and the same one with fastrnn's LSTMs.

Without velocities one observation does not tell where the pole is falling: the policy must remember. Both are trained
in one run, with the same settings and seed. ``pip install 'fastrnn[torch]' sb3-contrib gymnasium``
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from _common import BASELINE, MODEL, figure, package, parser, report

STEPS, HIDDEN, EPISODES = 60_000, 64, 20


def environment(gymnasium: Any) -> Any:
    """Return CartPole whose observations are position and angle."""
    inner = gymnasium.make("CartPole-v1")
    kept = np.array([0, 2])
    space = gymnasium.spaces.Box(inner.observation_space.low[kept], inner.observation_space.high[kept])
    return gymnasium.wrappers.TransformObservation(inner, lambda o: o[kept], space)


def train(policy: Any, steps: int, seed: int) -> dict[str, Any]:
    """Train; return the learning curve, the CPU time and the mean reward of whole episodes afterwards."""
    gymnasium, contrib = (
        package(name, "pip install sb3-contrib gymnasium") for name in ("gymnasium", "sb3_contrib")
    )
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    class Curve(BaseCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.points: list[tuple[int, float]] = []

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rewards = [episode["r"] for episode in self.model.ep_info_buffer]
            if rewards:
                self.points.append((self.num_timesteps, float(np.mean(rewards))))

    envs = make_vec_env(lambda: environment(gymnasium), 8, seed=seed)
    model = contrib.RecurrentPPO(
        policy, envs, n_steps=128, batch_size=256, n_epochs=10, learning_rate=1e-3, ent_coef=0.01,
        policy_kwargs={"lstm_hidden_size": HIDDEN}, seed=seed, device="cpu",
    )  # fmt: skip
    curve, start = Curve(), time.process_time()
    model.learn(steps, callback=curve)
    seconds = time.process_time() - start
    reward, _ = evaluate_policy(model, envs, EPISODES, warn=False)
    return {"curve": curve.points, "speed": model.num_timesteps / seconds, "reward": float(reward)}


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    torch = package("torch", "pip install 'fastrnn[torch]'")
    package("sb3_contrib", "pip install sb3-contrib gymnasium")
    import fastrnn
    from fastrnn.torch.sb3 import MlpLstmPolicy

    torch.set_num_threads(1)  # steps are too small for more; the same for both
    fastrnn.set_num_threads(1)
    steps = 4_096 if options.quick else STEPS
    results = {
        name: train(p, steps, options.seed)
        for name, p in (("fastrnn", MlpLstmPolicy), ("stock", "MlpLstmPolicy"))
    }
    own, stock = results["fastrnn"], results["stock"]
    with figure(options.out / "rl_recurrent_ppo.png") as f:
        axes = f.subplots()
        for result, colour, label in ((own, MODEL, "fastrnn"), (stock, BASELINE, "sb3-contrib")):
            axes.plot(*zip(*result["curve"], strict=True), color=colour, label=label)
        axes.set(
            xlabel="steps", ylabel="reward of an episode", title="CartPole without velocities, recurrent PPO"
        )
        axes.legend()
    rows = [
        ("steps per CPU second", own["speed"], stock["speed"], "sb3-contrib's own policy"),
        (f"reward after training, mean of {EPISODES} episodes", own["reward"], stock["reward"], "the same"),
    ]
    report("rl_recurrent_ppo", rows, options.out / "rl_recurrent_ppo.png")


if __name__ == "__main__":
    main()
