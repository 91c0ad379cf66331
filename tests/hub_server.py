"""A local stand-in for the Hugging Face Hub: real HTTP, enough of its interface for the real client.

Creates repositories, takes commits (small files inside, large ones through LFS), lists and serves files by revision,
refuses wrong tokens, and fails on demand: `fail(pattern, times, how)` answers matching requests with a status, or
cuts the connection. Every request is recorded in `requests`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "test-token-of-the-stand-in"
LFS_FROM = 10_000
"""Bytes from which a file is large."""


@dataclass
class Repo:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    lfs_paths: set[str] = field(default_factory=set)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        text = "".join(f"{path}:{hashlib.sha1(data).hexdigest()};" for path, data in sorted(content.items()))
        commit = hashlib.sha1(f"{branch}{len(self.commits)}{text}".encode()).hexdigest()
        self.commits[commit], self.branches[branch] = content, commit
        return commit


@dataclass
class Failure:
    pattern: str
    times: int
    how: int | str  # an HTTP status, or "cut"


class Hub:
    """Use as `with Hub() as hub:`; `hub.url` is the endpoint."""

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.failures: list[Failure] = []
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, files: dict[str, bytes]) -> Repo:
        """A repository with these files on `main`."""
        repo = self.repos.setdefault(name, Repo())
        repo.lfs_paths |= {path for path, data in files.items() if len(data) >= LFS_FROM}
        repo.commit("main", files)
        return repo

    def fail(self, pattern: str, times: int, how: int | str = 503) -> None:
        self.failures.append(Failure(pattern, times, how))

    def count(self, pattern: str) -> int:
        """How many requests matched, as `METHOD path`."""
        return sum(1 for request in self.requests if re.search(pattern, request))


class NotFound(Exception):
    def __init__(self, code: str):
        self.code = code


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_any(self):
        path = unquote(urlsplit(self.path).path)
        size = int(self.headers.get("Content-Length") or 0)
        request = f"{self.command} {path}"
        with self.hub.lock:
            self.hub.requests.append(request)
            failure = next((f for f in self.hub.failures if f.times > 0 and re.search(f.pattern, request)), None)
            if failure:
                failure.times -= 1
        if failure and failure.how == "cut":
            self.rfile.read(min(size, 100))
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(size)
        if failure:
            self.reply_json({"error": "injected"}, int(failure.how))
            return
        try:
            with self.hub.lock:
                self.route(path, body)
        except NotFound as missing:
            self.reply_json({"error": missing.code}, 404, {"X-Error-Code": missing.code})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def route(self, path: str, body: bytes) -> None:
        writes = self.command in ("POST", "PUT", "DELETE") and not path.startswith("/lfs/")
        given = self.headers.get("Authorization")
        known = given == f"Bearer {TOKEN}"
        if (given and not known) or (writes and not known):
            self.reply_json({"error": "Invalid username or password."}, 401)
            return
        for pattern, action in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                action(self, body, **match.groupdict())
                return
        self.reply_json({"error": f"the stand-in does not know {self.command} {path}"}, 501)

    def reply_json(self, content, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.reply(data, status, {"Content-Type": "application/json", **(headers or {})})

    def reply(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # --- what can be asked ----------------------------------------------------------------------------------------

    def repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            raise NotFound("RepoNotFound")
        return repo

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repo = self.repo(name)
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            raise NotFound("RevisionNotFound")
        return commit, repo.commits[commit]

    def root(self, body):
        self.reply(b"stand-in")

    def whoami(self, body):
        if not self.headers.get("Authorization"):
            self.reply_json({"error": "Invalid username or password."}, 401)
        else:
            self.reply_json({"type": "user", "name": "tester", "orgs": [{"name": "org"}]})

    def create(self, body):
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        if wanted.get("organization") == "forbidden":
            self.reply_json({"error": "You don't have the rights to create a model"}, 403)
        elif name in self.hub.repos:
            self.reply_json({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            visibility = wanted.get("visibility")
            private = bool(wanted.get("private")) or visibility == "private"
            self.hub.repos[name] = repo = Repo(private=private)
            repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
            self.reply_json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def branch(self, body, name, revision):
        repo = self.repo(name)
        if revision in repo.branches:
            self.reply_json({"error": "exists"}, 409)
        else:
            repo.branches[revision] = repo.branches["main"]
            self.reply_json({}, 201)

    def info(self, body, name, revision):
        revision = revision or "main"
        commit, files = self.files(name, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        self.reply_json(
            {"_id": name, "id": name, "modelId": name, "sha": commit, "private": self.repo(name).private,
             "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
        )  # fmt: skip

    def paths_info(self, body, name, revision):
        _, files = self.files(name, revision)
        from urllib.parse import parse_qs

        wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])
        wanted = [wanted] if isinstance(wanted, str) else wanted
        self.reply_json([{"type": "file", "path": path, **self.blob_of(name, path, files[path])}
                         for path in wanted if path in files])  # fmt: skip

    def tree(self, body, name, revision, inside=None):
        _, files = self.files(name, revision)
        start = f"{inside}/" if inside else ""
        files = {path: data for path, data in files.items() if path.startswith(start)}
        if inside and not files:
            raise NotFound("EntryNotFound")
        entries = []
        if "recursive=true" not in self.path.lower():
            folders = {start + path[len(start) :].split("/")[0] for path in files if "/" in path[len(start) :]}
            entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
            files = {path: data for path, data in files.items() if "/" not in path[len(start) :]}
        entries += [{"type": "file", "path": path, **self.blob_of(name, path, data)} for path, data in files.items()]
        self.reply_json(sorted(entries, key=lambda entry: entry["path"]))

    def blob_of(self, name: str, path: str, data: bytes) -> dict:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if path not in self.repo(name).lfs_paths:
            return {"oid": git, "size": len(data)}
        sha = hashlib.sha256(data).hexdigest()
        return {
            "oid": git,
            "size": len(data),
            "lfs": {"oid": sha, "sha256": sha, "size": len(data), "pointerSize": 130},
        }

    def preupload(self, body, name, revision):
        _, have = self.files(name, revision)
        files = []
        for file in json.loads(body)["files"]:
            old = self.blob_of(name, file["path"], have[file["path"]]) if file["path"] in have else None
            oid = (old["lfs"]["oid"] if "lfs" in old else old["oid"]) if old else None
            mode = "lfs" if file["size"] >= LFS_FROM else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply_json({"files": files})

    def lfs_batch(self, body, name):
        objects = []
        for item in json.loads(body)["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.blobs:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"},
                                     "verify": {"href": f"{self.hub.url}/verify"}}  # fmt: skip
            objects.append(answer)
        self.reply_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            self.reply_json({"error": "wrong content"}, 400)
        else:
            self.hub.blobs[oid] = body
            self.reply(b"")

    def verify(self, body):
        known = json.loads(body)["oid"] in self.hub.blobs
        self.reply_json({}, 200 if known else 404)

    def commit(self, body, name, revision):
        added = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                added[value["path"]] = self.hub.blobs[value["oid"]]
                self.repo(name).lfs_paths.add(value["path"])
        commit = self.repo(name).commit(revision, added)
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self.reply_json({"success": True, "commitOid": commit, "commitUrl": url})

    def resolve(self, body, name, revision, path):
        commit, files = self.files(name, revision)
        if path not in files:
            raise NotFound("EntryNotFound")
        data, blob = files[path], self.blob_of(name, path, files[path])
        etag = f'"{blob["lfs"]["oid"] if "lfs" in blob else blob["oid"]}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes", "X-Linked-ETag": etag,
                   "X-Linked-Size": str(len(data))}  # fmt: skip
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span and self.command == "GET":
            first, last = int(span[1]), int(span[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self.reply(data[first : last + 1], 206, headers)
        else:
            self.reply(data, 200, headers)

    def validate_yaml(self, body):
        import yaml

        text = json.loads(body)["content"].split("---")[1]
        errors = [] if isinstance(yaml.safe_load(text), dict) else [{"message": "no mapping"}]
        self.reply_json({"errors": errors, "warnings": []}, 400 if errors else 200)


KIND = r"(models|datasets)"
NAME, REVISION = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>[\w./-]+)"
ROUTES = [
    (r"(HEAD|GET) /?", Handler.root),
    (r"GET /api/whoami-v2", Handler.whoami),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate_yaml),
    (rf"POST /api/models/{NAME}/branch/{REVISION}", Handler.branch),
    (rf"POST /api/models/{NAME}/preupload/{REVISION}", Handler.preupload),
    (rf"POST /api/models/{NAME}/commit/{REVISION}", Handler.commit),
    (rf"POST /api/{KIND}/{NAME}/paths-info/{REVISION}", Handler.paths_info),
    (rf"GET /api/{KIND}/{NAME}/tree/(?P<revision>refs/\w+/\w+|[^/]+)(/(?P<inside>.+))?", Handler.tree),
    (rf"GET /api/{KIND}/{NAME}(/revision/{REVISION})?", Handler.info),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (r"PUT /lfs/(?P<oid>[0-9a-f]+)", Handler.lfs_put),
    (r"POST /verify", Handler.verify),
    (rf"(HEAD|GET) (/datasets)?/{NAME}/resolve/(?P<revision>refs/\w+/\w+|[^/]+)/(?P<path>.+)", Handler.resolve),
]  # fmt: skip


def point_at(monkeypatch, url: str) -> None:
    """The client of this process, pointed at `url`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def published(hub, repo: str, branch: str = "main") -> dict[str, bytes]:
    """The files of a repository by path."""
    held = hub.repos[repo]
    return {path: data for path, data in held.commits[held.branches[branch]].items() if path != ".gitattributes"}


if __name__ == "__main__":
    with Hub() as served:
        print(f"HF_ENDPOINT={served.url} HF_HUB_DISABLE_XET=1 HF_TOKEN={TOKEN}", flush=True)
        threading.Event().wait()
