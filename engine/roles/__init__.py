"""Roles decide, they do not do: `handle(event) -> commands`. No sockets, processes or torch."""
