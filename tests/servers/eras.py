"""An MCP server in plain Python that many clients call at once, of the era that `ERA` names: legacy, dual or modern.

Whatever it says in the course of a call, and because of it, names the `nonce` among the call's arguments: results,
progress, log lines, questions, resources. So a client can tell whether it hears what is another's.

The file `fault` in its home makes the next processes misbehave: `WHO WHAT`, WHO being `all` or `lanes` (processes that
are spoken to in the legacy era from the first line on).
"""

import collections
import itertools
import json
import os
import pathlib
import signal
import sys
import threading
import time

ERA = os.environ.get("ERA", "dual")
TTL_MS = int(os.environ.get("TTL_MS", "0"))
CANCELLED = pathlib.Path.home() / "cancelled"
FAULT = pathlib.Path.home() / "fault"
META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
WAIT_S = 120
TOOLS = ("work", "wait", "was_cancelled", "ask", "update", "change", "pid", "asked", "fault", "die", "grow")
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
LISTS = {
    "tools/list": ("tools", [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]),
    "resources/list": ("resources", [{"uri": "nonce://", "name": "any"}]),
    "resources/templates/list": ("resourceTemplates", []),
}
QUESTIONS = {
    "elicitation/create": {"requestedSchema": {"type": "object", "properties": {"word": {"type": "string"}}}},
    "sampling/createMessage": {"messages": [], "maxTokens": 9},
    "roots/list": {},
}

writing = threading.Lock()
changed = threading.Condition()
spoken = None
"""The era of the first request: "legacy" or "modern"."""
probed = False
asked = collections.Counter()
cancels = {}
answers = {}
subscribed = set()
listens = {}
numbers = itertools.count(1)


class Answer(Exception):
    """Ends a request with these members of the response."""

    def __init__(self, **members):
        self.members = members


def send(**message):
    line = json.dumps({"jsonrpc": "2.0", **message}) + "\n"
    with writing:
        sys.stdout.write(line)
        sys.stdout.flush()


def notify(method, **params):
    send(method=method, params=params)


def refuse(code, message, **data):
    raise Answer(error={"code": code, "message": message, **({"data": data} if data else {})})


def text(value):
    return {"content": [{"type": "text", "text": str(value)}]}


class Call:
    """A tools/call while it is served; cancelled when `event` is set."""

    def __init__(self, raw_id, params):
        self.id, self.params, self.event = raw_id, params, threading.Event()
        self.arguments, self.meta = params.get("arguments") or {}, params.get("_meta") or {}
        self.nonce = self.arguments.get("nonce", "")
        cancels[raw_id] = self.event

    def report(self, step):
        if "progressToken" in self.meta:
            notify(
                "notifications/progress", progressToken=self.meta["progressToken"], progress=step, message=self.nonce
            )

    def log(self, what):
        if spoken == "legacy" or META + "logLevel" in self.meta:
            notify("notifications/message", level="warning", data=f"{what} {self.nonce}")

    def run(self):
        return getattr(self, "on_" + self.params["name"])()

    def on_work(self):
        for step in range(1, self.arguments.get("steps", 3) + 1):
            self.report(step)
            self.log("step of")
            if self.event.wait(self.arguments.get("pause", 0.001)):
                self.on_cancelled()
                return None
        return text(f"done {self.nonce}")

    def on_wait(self):
        self.report(1)
        self.event.wait(WAIT_S)
        self.on_cancelled()

    def on_cancelled(self):
        (CANCELLED / self.nonce).touch()
        self.log("cancelled")
        if self.arguments.get("asks_late"):
            self.question()

    def on_was_cancelled(self):
        """Whether it was, in any process of this server."""
        until = time.monotonic() + WAIT_S / 2
        while not (found := (CANCELLED / self.nonce).exists()) and time.monotonic() < until:
            time.sleep(0.01)
        return text(f"{found} {self.nonce}")

    def on_ask(self):
        answer = self.answer_by_retry() if spoken == "modern" else self.answer_by_request()
        return text(f"{self.nonce} got {json.dumps(answer)}")

    def question(self):
        method = self.arguments.get("method", "elicitation/create")
        number = next(numbers)
        answers[number] = collections.deque()
        params = dict(QUESTIONS[method], message=f"who are you, {self.nonce}?")
        send(id=number, method=method, params=params)
        return number

    def answer_by_request(self):
        number = self.question()
        with changed:
            changed.wait_for(lambda: answers[number] or self.event.is_set(), WAIT_S)
        if not answers[number]:
            return None
        return answers.pop(number)[0]

    def answer_by_retry(self):
        method = self.arguments.get("method", "elicitation/create")
        if "inputResponses" not in self.params:
            params = dict(QUESTIONS[method], message=f"who are you, {self.nonce}?")
            requests = {"form": {"method": method, "params": params}}
            raise Answer(result={"resultType": "input_required", "inputRequests": requests, "requestState": self.nonce})
        if self.params.get("requestState") != self.nonce:
            refuse(-32602, f"not your state, {self.nonce}")
        return {"result": self.params["inputResponses"]["form"]}

    def on_update(self):
        uri = self.arguments["uri"]
        if uri in subscribed:
            notify("notifications/resources/updated", uri=uri)
        for listen_id, wanted in list(listens.items()):
            if uri in wanted.get("resourceSubscriptions", ()):
                tell_listener(listen_id, "notifications/resources/updated", uri=uri)
        return text(f"updated {self.nonce}")

    def on_change(self):
        if spoken == "legacy":
            send(method="notifications/tools/list_changed")
        for listen_id, wanted in list(listens.items()):
            if wanted.get("toolsListChanged"):
                tell_listener(listen_id, "notifications/tools/list_changed")
        return text(f"changed {self.nonce}")

    def on_grow(self):
        LISTS["tools/list"][1].append({"name": self.arguments["name"], "inputSchema": {"type": "object"}})
        return text("grown") if self.arguments.get("quiet") else self.on_change()

    def on_pid(self):
        return text(os.getpid())

    def on_asked(self):
        return text(json.dumps(asked))

    def on_fault(self):
        FAULT.write_text(self.arguments["fault"])
        return text("from now on")

    def on_die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def tell_listener(listen_id, method, **params):
    notify(method, **params, _meta={META + "subscriptionId": listen_id})


def fault(who):
    set_who, _, what = FAULT.read_text().partition(" ") if FAULT.exists() else ("", "", "")
    return what if set_who in ("all", who) else ""


def initialize(raw_id):
    what = fault("primary" if probed else "lanes")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hangs":
        time.sleep(WAIT_S)
    if what == "refuses":
        time.sleep(0.2)
        refuse(-32603, "not today")
    result = {
        "protocolVersion": "2025-11-25",
        "capabilities": CAPABILITIES,
        "serverInfo": {"name": "eras", "version": "1"},
    }
    if what == "exits":
        print("exits after initialize", file=sys.stderr, flush=True)
        send(id=raw_id, result=result)
        os._exit(3)
    return result


def discover():
    return {
        "supportedVersions": [MODERN],
        "capabilities": CAPABILITIES,
        "ttlMs": 0,
        "cacheScope": "public",
        "_meta": {META + "serverInfo": {"name": "eras", "version": "1"}},
    }


def listing(method):
    asked[method] += 1
    member, items = LISTS[method]
    scope = "public" if TTL_MS else "private"
    return {member: items, **({"ttlMs": TTL_MS, "cacheScope": scope} if spoken == "modern" else {})}


def admit(method, params):
    """Refuse what is not of the era that is spoken."""
    global spoken, probed
    if method == "server/discover":
        probed = True
        if ERA == "legacy" or spoken == "legacy":
            refuse(-32601, "Method not found")
        if fault("primary") == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault("primary") == "hangs":
            time.sleep(WAIT_S)
        spoken = "modern"
    elif method == "initialize":
        if ERA == "modern" or spoken == "modern":
            refuse(-32022, "Unsupported protocol version", supported=[MODERN])
        spoken = "legacy"
    elif spoken == "modern" and META + "clientCapabilities" not in (params.get("_meta") or {}):
        refuse(-32602, "no envelope")


def answered(raw_id, method, params):
    admit(method, params)
    if method == "initialize":
        return initialize(raw_id)
    if method == "server/discover":
        return discover()
    if method in LISTS:
        return listing(method)
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": f"content of {params['uri']}"}]}
    if spoken == "legacy":
        if method == "resources/subscribe":
            subscribed.add(params["uri"])
            return {}
        if method == "resources/unsubscribe":
            subscribed.discard(params["uri"])
            return {}
        if method in ("ping", "logging/setLevel"):
            return {}
    if method == "subscriptions/listen" and spoken == "modern":
        listens[raw_id] = params.get("notifications") or {}
        tell_listener(raw_id, "notifications/subscriptions/acknowledged", notifications=listens[raw_id])
        return None
    return refuse(-32601, "Method not found")


def serve(raw_id, handler, *args):
    try:
        result = handler(*args)
        members = None if result is None else {"result": result}
    except Answer as answer:
        members = answer.members
    cancels.pop(raw_id, None)
    if members is not None:
        if spoken == "modern" and "result" in members:
            members["result"].setdefault("resultType", "complete")
        send(id=raw_id, **members)


def take_note(method, params):
    if method == "notifications/cancelled":
        raw_id = params["requestId"]
        listens.pop(raw_id, None)
        if raw_id in cancels:
            cancels[raw_id].set()
            with changed:
                changed.notify_all()


CANCELLED.mkdir(exist_ok=True)
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if method is None:
        with changed:
            if message["id"] in answers:
                answers[message["id"]].append({key: message[key] for key in ("result", "error") if key in message})
                changed.notify_all()
    elif "id" not in message:
        take_note(method, params)
    elif method == "tools/call":
        call = Call(message["id"], params)
        try:
            admit(method, params)
        except Answer as answer:
            send(id=message["id"], **answer.members)
            continue
        threading.Thread(target=serve, args=(message["id"], call.run), daemon=True).start()
    else:
        serve(message["id"], answered, message["id"], method, params)
os._exit(0)
