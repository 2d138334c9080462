"""A hub of models on this machine, and the hub's cache as its client lays it out."""

import http.server
import shutil
import threading

import pytest


def set_hub_address(monkeypatch, address):
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    # Older versions of the client hold a copy where they use it.
    for module in (constants, file_download):
        name = "HUGGINGFACE_CO_URL_TEMPLATE"
        monkeypatch.setattr(module, name, template, raising=False)


def put_in_cache(root, repository, **files):
    """Lay files out as the hub's client does after a download."""
    repository = root / f"models--{repository.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text("b" * 40)
    snapshot = repository / "snapshots" / ("b" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    for source in files.values():
        shutil.copy(source, snapshot)
    return snapshot


@pytest.fixture
def empty_hub(monkeypatch, tmp_path):
    """No test sees the caches of the machine it runs on, or asks the real hub."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    set_hub_address(monkeypatch, "http://127.0.0.1:1")


@pytest.fixture
def fake_hub(monkeypatch):
    """Serve {repository/file: content} as the hub does; gives the requests seen."""
    files, requests = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            if "/resolve/" in self.path:  # The hub's client asks of its own accord.
                requests.append((self.command, self.path))
            content = files.get(self.path.replace("/resolve/main", "").lstrip("/"))
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            self.send_response(200)
            self.send_header("ETag", f'"{hash(content) % 2**32:08x}"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def do_GET(self):
            self.wfile.write(self.do_HEAD() or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    set_hub_address(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield files, requests
    server.shutdown()
    server.server_close()
    thread.join()
