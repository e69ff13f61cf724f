"""Roles decide and have no effects: `handle(event) -> commands`. No sockets, processes or torch."""
