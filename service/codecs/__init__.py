"""Photos in, masks out: decoding, resizing, encoding, tiles; knows nothing of the rest."""
