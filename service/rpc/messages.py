"""The messages of the protocols, from ``protos``, in a pool of their own.

Programs that load other files of the same names, as clients of Triton and KServe do, could not be
in one process with them otherwise, and generated code would fit few versions of protobuf.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

__all__ = ["HEALTH", "SERVICE", "filled", "kind", "status_details"]

SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"

# Of Any (google/protobuf/any.proto).
_TYPE_URL = "type.googleapis.com/"

_pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(
    (files("ppool.service.rpc") / "protos" / "protocol.binpb").read_bytes()
).file:
    _pool.Add(_file)


def kind(name: str) -> Any:
    """The class of the messages called so, such as ``inference.ModelInferRequest``."""
    return GetMessageClass(_pool.FindMessageTypeByName(name))


def filled(name: str, content: dict[str, Any]) -> Message:
    """A message with what a document of JSON says."""
    message: Message = ParseDict(content, kind(name)())
    return message


def status_details(
    code: int, text: str, reason: str, retry_seconds: int | None, about: dict[str, str]
) -> bytes:
    """What ``grpc-status-details-bin`` holds: for programs, what went wrong and when to retry.

    Args:
        code: Of the status.
        text: For people.
        reason: The same for the same kind of error, as in the ``type`` of problem documents.
        retry_seconds: When the same may work.
        about: More of the error.
    """
    details = [
        filled("google.rpc.ErrorInfo", {"reason": reason, "domain": "ppool", "metadata": about})
    ]
    if retry_seconds is not None:
        details.append(filled("google.rpc.RetryInfo", {"retry_delay": f"{retry_seconds}s"}))
    status = kind("google.rpc.Status")(code=code, message=text)
    for detail in details:
        status.details.add(
            type_url=_TYPE_URL + detail.DESCRIPTOR.full_name, value=detail.SerializeToString()
        )
    serialized: bytes = status.SerializeToString()
    return serialized
