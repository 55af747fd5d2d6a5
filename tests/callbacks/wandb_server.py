"""A W&B server on the loopback interface, with as much of wandb 0.31's protocol as runs use."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PROJECT = {"id": "p", "name": "longderm", "entity": {"id": "e", "name": "me"}}


@dataclass
class StoredRun:
    history: list[dict[str, Any]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


class WandbServer:
    """Keep the runs that are sent to it, by id.

    Args:
        refuses: Answers every request with 401.
    """

    def __init__(self, refuses: bool = False) -> None:
        self.runs: dict[str, StoredRun] = defaultdict(StoredRun)
        self.refuses = refuses
        handler = type("BoundHandler", (_Handler,), {"wandb": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> WandbServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
        answer: Callable[[dict[str, Any]], dict[str, Any]] | None = operation and getattr(
            self, f"_{operation.group(1)}", None
        )
        return {"data": answer(variables) if answer else {}}

    def stream(self, run_id: str, files: dict[str, dict[str, Any]]) -> None:
        run = self.runs[run_id]
        for name, part in files.items():
            lines = [json.loads(line) for line in part["content"] if name.endswith("l")]
            if name == "wandb-history.jsonl":
                run.offsets.append(part["offset"])
                run.history[part["offset"] :] = lines
            elif name == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}"}}

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        return {"model": PROJECT | {"bucket": self._bucket(name) if name in self.runs else None}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or base64.b64decode(variables["id"]).decode()
        new = name not in self.runs
        self.runs[name].config |= json.loads(variables.get("config") or "{}")
        return {"upsertBucket": {"bucket": self._bucket(name), "inserted": new}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": f, "uploadUrl": f"{self.url}/storage/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _bucket(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        return {
            "id": base64.b64encode(name.encode()).decode(),
            "name": name,
            "displayName": name,
            "project": PROJECT,
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }


class _Handler(BaseHTTPRequestHandler):
    """Speak HTTP/1.0: no connection outlives the server's end."""

    wandb: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.wandb.refuses:
            return self._reply({"errors": [{"message": "permission denied"}]}, 401)
        reply: dict[str, Any] = {}
        if self.path.startswith("/graphql"):
            request = json.loads(body)
            reply = self.wandb.graphql(request["query"], request.get("variables") or {})
        elif self.path.endswith("/file_stream"):
            self.wandb.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
        self._reply(reply)

    do_GET = do_PUT = do_POST

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
