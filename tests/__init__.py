"""Tests; folders mirror the packages. What several of them use is in `tests/helpers`."""
