"""The convolutional networks of the tasks as an RLlib module: its own differ from those."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor
from torch_nets import linear, trunk


class SharedTrunk(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """Policy and value on one trunk; `model_config` is the section `network` of the job."""

    def setup(self) -> None:
        self.trunk, num_features = trunk(self.model_config, self.observation_space.shape)
        self.policy = linear(num_features, int(self.action_space.n), 0.01)
        self.value = linear(num_features, 1, 1.0)

    def _forward(self, batch: dict[str, Any], **_: object) -> dict[str, Tensor]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(self.trunk(batch[Columns.OBS]))}

    def _forward_train(self, batch: dict[str, Any], **_: object) -> dict[str, Tensor]:
        features = self.trunk(batch[Columns.OBS])
        logits = self.policy(features)
        return {Columns.ACTION_DIST_INPUTS: logits, Columns.EMBEDDINGS: features}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:  # noqa: ANN401
        features = self.trunk(batch[Columns.OBS]) if embeddings is None else embeddings
        value: Tensor = self.value(features)
        return value.squeeze(-1)
