"""Arithmetic that gives the same bits whenever it is given the same numbers."""

from __future__ import annotations

import os

_MKL, _STRICT = "MKL_CBWR", "AUTO,STRICT"


def make_reproducible() -> None:
    """Makes products of matrices independent of where these lie in memory, for this process and
    those forked from it. Must be called before the first of them; the user's own choice is kept.

    MKL, PyTorch's BLAS library, otherwise adds up in an order that depends on their alignment: a
    product of 200 x 64 x 2 then has four results. Source: Intel oneMKL Developer Guide,
    "Obtaining Numerically Reproducible Results".
    """
    os.environ.setdefault(_MKL, _STRICT)
