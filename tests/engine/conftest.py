"""Tests compute as roles do: with one thread, since small tensors on busy cores only wait."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
