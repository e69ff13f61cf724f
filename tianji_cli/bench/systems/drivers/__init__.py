"""TianJi's files that run in a system's own interpreter. They import no other file of TianJi.

`recorder.py` and `xingtian_site/` must also run under Python 3.7, XingTian's.
"""
