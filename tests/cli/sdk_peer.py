"""The conformance server over the official SDK's own HTTP transport, at the path of an instance: `sdk_peer.py PORT`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "servers/conformance"))

from offers import make_server

PATH = "/mcp/memory"

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    app = make_server().streamable_http_app(streamable_http_path=PATH)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
