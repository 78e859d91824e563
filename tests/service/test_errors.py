"""Every way in which a photo can fail has its problem."""

import pickle
import subprocess
import sys

import pytest

from ppool.service import errors
from ppool.service.http.errors import problem as of_error

KINDS = errors.CodecError.__subclasses__()


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_that_fails_is_the_fault_of_who_sent_it(kind: type[errors.CodecError]) -> None:
    error = pickle.loads(pickle.dumps(kind("Send another.")))  # noqa: S301 - as workers send it
    problem = of_error(error)
    assert 400 <= problem.status < 429
    assert problem.document()["detail"] == "Send another."


def test_the_server_imports_no_codec_that_only_workers_use() -> None:
    code = "import sys, ppool.service.http.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert "ppool.service.codecs.header" in loaded
    assert not loaded & {"simplejpeg", "zlib_ng", "onnxruntime", "pillow_heif", "PIL.ImageCms"}
