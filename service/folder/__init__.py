"""Photos to masks with no server: which photos, what of them is finished, and the work itself."""

from ppool.service.folder.job import Job
from ppool.service.folder.pdf import DPI
from ppool.service.folder.photos import SUFFIXES, Found, Photo, find_photos
from ppool.service.folder.run import Counts, Run
from ppool.service.folder.summary import ENDS, Page, Summary

__all__ = [
    "DPI",
    "ENDS",
    "SUFFIXES",
    "Counts",
    "Found",
    "Job",
    "Page",
    "Photo",
    "Run",
    "Summary",
    "find_photos",
]
