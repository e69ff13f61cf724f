"""Gymnasium's environments of classic control as arrays: a step costs Python once for all."""
