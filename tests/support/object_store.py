"""An object store that speaks S3, as moto plays it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

_KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}


class ObjectStore:
    """A server at `url`, and a bucket of its own: what moto keeps is shared by all of a process.

    `place` is where clients put their files.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._bucket = f"files-{uuid.uuid4().hex}"
        self.place = f"s3://{self._bucket}/below"
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=_KEYS["AWS_REGION"],
            aws_access_key_id=_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self._client.create_bucket(Bucket=self._bucket)

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return what its clients' environment has to say, where it is not reached by another URL."""
        return {**_KEYS, "AWS_ENDPOINT_URL": url or self.url, "AWS_ALLOW_HTTP": "true"}

    def blobs(self) -> list[str]:
        """Return the names of what is there, without the folders that they are in."""
        found = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        return [entry["Key"].rpartition("/")[2] for entry in found]

    def halves(self) -> list[str]:
        """Return the names of what is being uploaded in parts."""
        found = self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", [])
        return [entry["Key"].rpartition("/")[2] for entry in found]

    def clear(self) -> None:
        """Remove what is there."""
        for entry in self._client.list_objects_v2(Bucket=self._bucket).get("Contents", []):
            self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run one."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield ObjectStore(f"http://{host}:{port}")
    finally:
        server.stop()
