"""Who runs when: the batcher, what batches cost, admission and dispatch; no HTTP and no pixels."""
