"""Both ends of each way to transmit. Programs for the interpreter that has the library in question,
so they import nothing of TianJi but `harness` and `workers`, which works from Python 3.7 on."""
