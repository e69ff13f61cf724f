"""Q-learning of one agent and of many: what DQN, VDN and QMIX have in common."""
