"""A real Prometheus scrapes a busy service for a minute: each scrape works, and both count the same.

It needs Debian's package `prometheus`.

    .venv/bin/python -m tests.scrape --seconds 60
"""

import argparse
import contextlib
import itertools
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from tests.service import PATIENCE, Service, Setting, eventually, running
from tests.storage import report

CONFIGURATION: Final = """
global: {{scrape_interval: 1s}}
scrape_configs: [{{job_name: gofer, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]
"""
ADDRESS: Final = "127.0.0.1:{port}"


def free_port() -> int:
    """Return a port that no one listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def prometheus(folder: Path, target: int, port: int) -> Iterator[httpx.Client]:
    """Start Prometheus on this port, let it scrape the other one, and yield a client of its API."""
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(port=target))
    address = ADDRESS.format(port=port)
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log)
        try:
            with httpx.Client(
                base_url=f"http://{address}/api/v1", timeout=PATIENCE, trust_env=False
            ) as client:
                yield client
        finally:
            process.terminate()
            process.wait()


def query(client: httpx.Client, text: str) -> dict[str, float]:
    """Return the value of each series, by the value of its one label, or ""."""
    answer: Any = client.get("/query", params={"query": text}).raise_for_status().json()
    return {
        next(iter(found["metric"].values()), ""): float(found["value"][1])
        for found in answer["data"]["result"]
    }


def last_error(client: httpx.Client) -> str | None:
    """Return why the last scrape failed, "" if it did not; None if there was none."""
    with contextlib.suppress(httpx.HTTPError):
        targets = client.get("/targets").raise_for_status().json()["data"]["activeTargets"]
        return next((str(target["lastError"]) for target in targets if target["health"] != "unknown"), None)
    return None


def work(service: Service, seconds: float) -> int:
    """Submit jobs of several types for so long; return how many."""
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() > end:
            return number
        job = {"type": ("echo", "no_json", "where")[number % 3], "payload": {"n": number}}
        service.client.post("/jobs", json=job).raise_for_status()
        time.sleep(0.01)
    raise AssertionError


def scraped(seconds: float) -> dict[str, Any]:
    """Let Prometheus scrape for so long; return what it has seen, and what the service says."""
    settings: dict[str, Setting] = {"GOFER_HANDLERS": "tests.jobs:handlers", "GOFER_WORKERS": 2}
    with tempfile.TemporaryDirectory() as folder, running(**settings) as service:
        with prometheus(Path(folder), service.port, free_port()) as client:
            eventually(lambda: last_error(client) is not None)
            submitted = work(service, seconds)
            eventually(lambda: not service.jobs(status="pending") and not service.jobs(status="processing"))
            said = service.client.get("/metrics").json()
            total = 'sum by (event) (gofer_job_events_total{event=~"created|completed|failed"})'
            eventually(lambda: query(client, total).get("created") == said["total_jobs_created"])
            seen = {
                "submitted": submitted,
                "events": query(client, total),
                "failed scrapes": query(client, "count_over_time(up[1h]) - sum_over_time(up[1h])").popitem()[
                    1
                ],
                "scrapes": query(client, "count_over_time(up[1h])").popitem()[1],
                "waiting, 0.99": query(
                    client, "histogram_quantile(0.99, sum by (le) (gofer_job_waiting_seconds_bucket))"
                ).popitem()[1],
                "last error": last_error(client),
                "service": said,
            }
        service.stop(signal.SIGTERM)
    return seen


def main() -> None:
    """Scrape, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    if shutil.which("prometheus") is None:
        parser.exit(2, "prometheus is not installed: apt-get install prometheus\n")
    report(json.dumps(scraped(options.seconds), indent=2))


if __name__ == "__main__":
    main()
