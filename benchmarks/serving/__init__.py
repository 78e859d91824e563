"""ppool beside the servers people use: same ONNX file, same work, same machine, one run."""
