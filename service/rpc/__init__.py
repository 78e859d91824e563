"""What travels over gRPC: the Open Inference Protocol and the health of the server."""
