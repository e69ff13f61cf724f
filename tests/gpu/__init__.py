"""Proves on one GPU what the other tests can only rehearse, and measures it: `make test-gpu`."""
