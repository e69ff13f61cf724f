"""The supervisor of a host: starts, watches and ends the processes of a run there."""
