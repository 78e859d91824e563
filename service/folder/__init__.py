"""Photos to masks with no server: which photos, what of them is finished, and the work itself."""

from ppool.service.folder.photos import SUFFIXES, Found, Photo, find_photos
from ppool.service.folder.run import Counts, Job, Run
from ppool.service.folder.summary import Summary

__all__ = ["SUFFIXES", "Counts", "Found", "Job", "Photo", "Run", "Summary", "find_photos"]
