"""`rsup view` as a command: says its address, answers there on loopback alone, ends well when it is told to."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from forks import Rsup

PROGRAM = [sys.executable, "-m", "rsup.pipeline.cli", "view"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(viewed: Path, number: int) -> None:
    command = [*PROGRAM, str(viewed / "mosaic")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[:2] == ["mosaic: field_x4\n", f"scene: {viewed / 'field.zarr'}\n"]
        found = re.fullmatch(r"address: (http://127\.0\.0\.1:\d+/)\n", lines[2])
        assert found
        with urllib.request.urlopen(f"{found[1]}mosaics") as answer:
            assert json.load(answer) == [{"name": "field_x4"}]
        listening = {
            each.laddr.ip for each in psutil.Process(process.pid).net_connections("inet") if each.status == "LISTEN"
        }
        assert listening == {"127.0.0.1"}
        os.kill(process.pid, number)
        assert process.wait(30) == 0
        assert process.stdout.read() == "" and process.stderr.read() == ""


def test_what_cannot_be_served_is_one_sentence(rsup: Rsup, viewed: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = {
            (viewed / "mosaic", "--port", port): (2, f"--port {port} cannot be had"),
            (viewed / "mosaic", "--port", 99999): (2, "--port 99999: choose 1 to 65535"),
            (tmp_path,): (2, "has no mosaic of rsup's"),
            ("s3://bucket/mosaic",): (2, "view shows what lies on this machine"),
            (viewed / "mosaic", "--scene", "https://a.example/s.zarr"): (2, "view shows what lies on this machine"),
            (viewed / "mosaic", "--scene", tmp_path / "none.zarr"): (5, "does not exist"),
        }
        for arguments, (code, sentence) in cases.items():
            result = rsup("view", *arguments, timeout=60)
            assert (result.returncode, result.stdout) == (code, "") and sentence in result.stderr
            assert result.stderr.count("\n") == 1
