"""One file a peer, written as its own documentation recommends."""
