"""C++ sources of the native library; see ``ppool._library`` for its use from Python."""
