"""How fast bytes get from several processes into the memory of one: `tianji bench transport`."""
