"""A real S3 server on loopback, moto's, that can be told to answer 503 to a share of its requests; and its buckets.

Run as `python buckets.py PORT`. PUT /-/faults/0.1 makes it refuse a tenth of what follows, half of that after it has
been done (as when an answer is lost); from PUT /-/stall/yes to PUT /-/stall/no it completes no upload of several parts;
GET /-/seen lists what has been asked so far.
"""

from __future__ import annotations

import json
import random
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest

KEY, SECRET = "AKIDLOOPBACK000", "wonderful-secret-of-the-tests"
"""Credentials that must be found nowhere."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Bucket:
    """One bucket, looked at by another client than rsup's."""

    def __init__(self, endpoint: str, name: str) -> None:
        import boto3

        self.endpoint, self.name = endpoint, name
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def address(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}"

    def keys(self, prefix: str = "") -> dict[str, str]:
        """Those below a prefix, by the rest of each; somebody may be writing there."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key.removeprefix(prefix).lstrip("/"): key for key in keys}

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """What lies below a prefix, by the rest of its key, while nobody writes there."""
        return {rest: self.get(key) for rest, key in self.keys(prefix).items()}

    def archive(self) -> dict[str, bytes]:
        """What lies below `archive/`, but for that address, which of all files each MosaicJSON alone has to say."""
        found = self.objects("archive/")
        for key in (key for key in found if key.endswith("/mosaic_x4.json")):
            line = f' "asset_prefix": "{self.address("archive")}/{key.partition("/")[0]}/",\n'.encode()
            assert found[key].count(line) == 1
            found[key] = found[key].replace(line, b"")
        return found

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()  # type: ignore[no-any-return]

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def uploads(self) -> list[str]:
        """Keys of uploads that were begun and not ended."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    @contextmanager
    def faults(self, share: float) -> Iterator[None]:
        """Let the server refuse a share of all requests while the block runs."""
        _ask("PUT", f"{self.endpoint}/-/faults/{share}")
        try:
            yield
        finally:
            _ask("PUT", f"{self.endpoint}/-/faults/0")

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let no upload of several parts be completed while the block runs."""
        _ask("PUT", f"{self.endpoint}/-/stall/yes")
        try:
            yield
        finally:
            _ask("PUT", f"{self.endpoint}/-/stall/no")

    def seen(self) -> list[tuple[str, str, int]]:
        """Method, path and status of every request, in their order."""
        return [tuple(each) for each in json.loads(_ask("GET", f"{self.endpoint}/-/seen"))]


def _ask(method: str, address: str) -> bytes:
    with _direct.open(urllib.request.Request(quote(address, safe=":/"), method=method)) as answer:
        return answer.read()  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Its address."""
    from rsup.pipeline.demo.servers import serve

    with serve(lambda port: [sys.executable, __file__, str(port)], "moto") as address:
        yield address


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of its own, with its server and credentials in the environment."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = Bucket(s3_server, f"bucket-{random.getrandbits(60):x}")
    found.client.create_bucket(Bucket=found.name)
    return found


class Faulty:
    """The server's WSGI application, with its faults."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.share = inner, 0.0
        self.dice = random.Random(7)
        self.seen: list[tuple[str, str, int]] = []
        self.free = Event()
        self.free.set()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/-/seen":
            start("200 OK", [])
            return [json.dumps(self.seen).encode()]
        if path.startswith("/-/faults/"):
            self.share = float(path.rpartition("/")[2])
            start("200 OK", [])
            return []
        if path.startswith("/-/stall/"):
            (self.free.clear if path.endswith("yes") else self.free.set)()
            start("200 OK", [])
            return []
        if method == "POST" and "uploadId=" in environ["QUERY_STRING"]:
            self.free.wait()
        fault, done = self.dice.random() < self.share, self.dice.random() < 0.5
        if fault and not done:
            _drain(environ)
            return self._refuse(method, path, start)
        said: list[Any] = []
        body = list(self.inner(environ, lambda *answer: said.extend(answer)))
        if fault:
            return self._refuse(method, path, start)
        self.seen.append((method, path, int(said[0][:3])))
        start(*said[:2])
        return body

    def _refuse(self, method: str, path: str, start: Callable[..., Any]) -> list[bytes]:
        self.seen.append((method, path, 503))
        start("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"]


def _drain(environ: dict[str, Any]) -> None:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def main(port: str) -> None:
    """Serve on loopback until killed."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", int(port), Faulty(DomainDispatcherApplication(create_backend_app)), threaded=True)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
