"""What a run has trained, for use after it: the policy, from its checkpoint."""
