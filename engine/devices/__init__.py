"""The devices that roles compute on, behind one small interface: streams, events, pinned memory."""
