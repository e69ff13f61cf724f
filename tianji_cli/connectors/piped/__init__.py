"""Hosts whose commands and files go through a keeper's standard input and output."""
