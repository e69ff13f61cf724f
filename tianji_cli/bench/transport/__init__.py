"""Rate of bytes from several processes into the memory of one: `tianji bench transport`."""
