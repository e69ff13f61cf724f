"""Converts the actions of an algorithm to those of an environment, always within its action space.

A policy chooses one flat row for each environment (`engine.spaces.action_parts`): categorical
entries counted from 0, then reals in units of a range, or of the environment (`scale`). `vector`
and `tensors` make of it what the environment declares: its own structure, in its own dtypes and
shapes, within its bounds.
"""
