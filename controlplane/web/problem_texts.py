"""What each problem means and what to do about it, for `/problems/<code>` and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class ProblemText:
    """`meaning` is one or two sentences; `remedies` are things to try, the likeliest first."""

    meaning: str
    remedies: tuple[str, ...]


TEXTS: Mapping[str, ProblemText] = {
    "malformed_json": ProblemText(
        "The body could not be read as JSON: it is cut short, not UTF-8, nested too deeply, or holds something JSON has not"
        " (`NaN`, a comment, a trailing comma).",
        (
            "Check the body with `python3 -m json.tool` or `jq`.",
            "With curl, send it with `--data-binary @file`: `-d` takes line breaks out.",
        ),
    ),
    "unauthorized": ProblemText(
        "The request has no bearer token, or one that is unknown, expired or revoked, or whose user is disabled.",
        (
            "Send `Authorization: Bearer <token>`. Tokens are taken from this header only, never from the URL or a cookie.",
            "The administrator's token is in the file `credentials` in `CORRAL_HOME`; `corral token create` makes others.",
            "A JWT needs `exp`, `sub` (an existing user) and `role`, and the algorithm that the server is set to.",
        ),
    ),
    "forbidden": ProblemText(
        "The token is valid, but its role does not include this.",
        (
            "`detail` names the role that is needed. Roles build on each other: viewer, caller, deployer, admin.",
            "Ask whoever runs this server for a token of that role.",
        ),
    ),
    "origin_rejected": ProblemText(
        "A browser sent this for a web page whose origin is not allowed here.",
        ("If the page is yours, list its origin in `ALLOWED_ORIGINS`.",),
    ),
    "quota_exceeded": ProblemText(
        "The owner has used up a quota: `quota` names which, `used` and `limit` say how far.",
        (
            "Remove what is no longer needed: `corral rm NAME`, `corral token rm NAME`. A failed instance counts until then.",
            "Quotas whose name ends in `_per_day` begin anew at midnight UTC; `Retry-After` says in how many seconds.",
            "`memory_mb` is the memory limits of all instances that are to run, added up: lower one, or stop an instance.",
            "The operator sets the quotas, for example `MAX_INSTANCES_PER_USER`; an administrator sets one user's.",
            "`corral usage` shows all of them. That of tokens is fixed.",
        ),
    ),
    "not_found": ProblemText(
        "There is no such path, instance, token or user. Another user's instance looks the same.",
        (
            "`corral ls` shows your instances. Names are per user; an administrator writes `owner/name`.",
            "Paths are listed on the page `/docs`.",
        ),
    ),
    "method_not_allowed": ProblemText(
        "The path exists, but not with this method; the `Allow` header lists those that work.",
        ("See `/docs` for what the path can do.",),
    ),
    "not_acceptable": ProblemText(
        "The `Accept` header rules out every form in which this answer exists.",
        ("Ask for `application/json`, for a stream for `text/event-stream`, or leave the header out.",),
    ),
    "conflict": ProblemText(
        "The request does not fit what is there: a name is taken, an instance is already in the state asked for, another new"
        " revision of it is on its way, or an `Idempotency-Key` was used with another body.",
        (
            "`detail` says which. Choose another name, or remove the old instance first.",
            "Use a new `Idempotency-Key` for a new request.",
        ),
    ),
    "not_running": ProblemText(
        "The instance was stopped on purpose, so it takes no calls.",
        ("Start it: `corral start NAME`, or `POST /instances/NAME/start`.",),
    ),
    "payload_too_large": ProblemText(
        "The body is larger than the route takes: 6 MiB for calls, 100 MiB for deploys.",
        (
            "Send less: leave out what can be installed or built, such as `node_modules` and `.git`.",
            "Give a large source as a `source_url`.",
        ),
    ),
    "unsupported_media_type": ProblemText(
        "The body is not of a type that the route reads, or is compressed.",
        (
            "Send `Content-Type: application/json`, in UTF-8, without `Content-Encoding`.",
            "With an archive, `multipart/form-data`: a part `spec`, which is JSON, and a part `source`, which is the file.",
        ),
    ),
    "host_rejected": ProblemText(
        "The `Host` header names a host that is not served here. This keeps foreign web pages from reaching a local server"
        " by a name of theirs.",
        ("If the name is this server's own, list it in `ALLOWED_HOSTS`.",),
    ),
    "invalid_request": ProblemText(
        "The request can be read, but is wrong. `errors` lists every wrong place at once: a JSON Pointer into the body, or"
        " `?name` for a query parameter.",
        (
            "Mend all places in `errors`. Unknown fields and parameters are refused, so a typing mistake never goes unseen.",
            "The schema of every body is in `/openapi.json` and on the page `/docs`.",
        ),
    ),
    "source_rejected": ProblemText(
        "The source that a deploy names cannot be used: its address is not allowed, nothing usable is there, or this host"
        " cannot run what is.",
        (
            "`detail` says why, and `errors` where. Private and loopback addresses need the operator's `SOURCE_ALLOW_PRIVATE`.",
            "`corral doctor`, or `GET /runtimes`, says which languages can be run here.",
        ),
    ),
    "archive_rejected": ProblemText(
        "The archive cannot be unpacked safely: an entry would leave its folder, has the name of another, or is a device; or"
        " all of it is too large, damaged, or no such archive. Nothing of it was kept.",
        (
            "`detail` names the entry. Pack plain files and folders only.",
            "`source_type` is `zip` or `tar`; a tar may be packed with gzip, bzip2, xz or zstd.",
        ),
    ),
    "build_failed": ProblemText(
        "Installing or building the server failed; it was never started. A redeploy leaves what ran before untouched."
        " `stderr_tail` has the last lines of the tool that failed.",
        (
            "Read `stderr_tail`; the whole output is in `corral logs NAME`, stream `build`.",
            "Mend the source, then `corral redeploy NAME` with it.",
        ),
    ),
    "secret_missing": ProblemText(
        "The instance's environment names a secret (`${secret:NAME}`) that its owner has not set, or has removed since."
        " The server was not started. A redeploy leaves what ran before untouched.",
        ("`corral secret set NAME`, then `corral start` the instance.", "`corral secret ls` shows what is set."),
    ),
    "deploy_failed": ProblemText(
        "The instance was made, but did not come up. It stays, as `failed`, with its log, until it is started again or"
        " removed.",
        (
            "Read `detail`, `stderr_tail` and `hint`; the whole log is in `corral logs NAME`.",
            "Mend the cause, then `corral start NAME`, or `corral rm NAME` and deploy anew.",
        ),
    ),
    "rate_limited": ProblemText(
        "Too many requests in a short time: calls per token, deploys per user, or wrong tokens per address.",
        (
            "Wait for the seconds in `Retry-After`.",
            "The operator sets `RATE_LIMIT_RPS`, `DEPLOYS_PER_MINUTE` and `AUTH_FAILURES_PER_MINUTE`.",
        ),
    ),
    "internal": ProblemText(
        "A bug in Corral. Nothing about it is shown here; the server's log has it under the incident's id.",
        (
            "If you run this server, look for the incident in its log and report it.",
            "Else tell whoever does the `request_id`.",
        ),
    ),
    "instance_crashed": ProblemText(
        "The MCP server's process ended while it worked on this call. It is restarted by its policy.",
        (
            "Try again: whether the call had an effect is not known.",
            "`corral logs NAME` has its last words; `GET /instances/NAME` its post-mortem.",
        ),
    ),
    "bad_child_message": ProblemText(
        "The MCP server answered with something that is no JSON-RPC message, or one that is too large.",
        ("The fault is the server's: see `corral logs NAME`.",),
    ),
    "instance_unavailable": ProblemText(
        "The instance is restarting, or has failed for good; `instance_status` says which.",
        (
            "While it restarts, try again after `Retry-After` seconds.",
            "If it has failed, mend the cause (`corral logs NAME`), then `corral start NAME`.",
        ),
    ),
    "busy": ProblemText(
        "The instance has as many calls in flight as it may have, or does not take what is sent to it.",
        ("Try again after `Retry-After` seconds, with fewer calls at once.",),
    ),
    "storage_unavailable": ProblemText(
        "Postgres is away, slow, or refuses to write. Running instances go on serving calls; what must be kept cannot be"
        " done now.",
        (
            "Try again after `Retry-After` seconds. Nothing was changed.",
            "The operator sees the reason in `corral doctor` and in the log.",
        ),
    ),
    "overloaded": ProblemText(
        "The control plane is at one of its limits: connections, memory for requests, or file descriptors.",
        ("Try again after `Retry-After` seconds.", "The operator may raise `MAX_CONNECTIONS` or `BUFFER_MAX_MB`."),
    ),
    "shutting_down": ProblemText(
        "The control plane is stopping. Instances that should run come back with it.",
        ("Try again in a few seconds.",),
    ),
    "call_timeout": ProblemText(
        "The MCP server did not answer within the call's time. It was told that the call is cancelled.",
        (
            "Give the call more time: `timeout_s` in the body, or `limits.call_timeout_s` of the instance.",
            "See in `corral logs NAME` what it is busy with.",
        ),
    ),
}
