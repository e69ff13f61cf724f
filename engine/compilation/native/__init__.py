"""Graphs as one C++ file without PyTorch: loops over entries, and calls of `product.cpp`."""
