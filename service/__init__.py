"""The segmentation service."""

import time

# Read before the slow imports, so that "ready after N s" in the log counts them too.
STARTED = time.monotonic()
