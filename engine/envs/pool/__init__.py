"""Gymnasium's environments stepped by EnvPool, in C++ (`env.backend: envpool`).

Only ids whose EnvPool version is proved equal to Gymnasium's are taken (`catalogue`), with
Gymnasium's spaces, arguments and ends of episodes (`vector`). Nothing here imports `envpool` before
an environment is made.
"""
