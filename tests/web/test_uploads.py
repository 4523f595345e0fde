"""Deploys that come in parts: an archive beside the request, streamed to the disk, or nothing of it kept."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from controlplane.deploy.underway import UPLOADS_PER_OWNER
from controlplane.errors import ArchiveRejected
from controlplane.model import Role
from controlplane.web.multipart import SPEC_MAX_BYTES
from tests.web.fakes import TOKENS, request
from tests.web.fakes_api import BOB, Api, pointers, problem_of, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

SPEC = {"name": "cow", "source_type": "zip"}
BOUNDARY = "b0undary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def archive(size: int = 10) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("server.py", b"#" * size)
    return buffer.getvalue()


ZIP = archive()


def part(name: str | None, content: bytes, *, file: str | None = None, **fields: str) -> bytes:
    disposition = "form-data" + (f'; name="{name}"' if name is not None else "")
    disposition += f'; filename="{file}"' if file is not None else ""
    lines = [
        f"Content-Disposition: {disposition}",
        *(f"{key.replace('_', '-')}: {text}" for key, text in fields.items()),
    ]
    return f"--{BOUNDARY}\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def spec_part(spec: Any = SPEC, **fields: str) -> bytes:
    return part("spec", spec if isinstance(spec, bytes) else json.dumps(spec).encode(), **fields)


def source_part(content: bytes = ZIP, **fields: str) -> bytes:
    return part("source", content, file="cow.zip", **{"Content_Type": "application/zip", **fields})


async def send(api: Api, content: bytes, path: str = "/deploy", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask("POST", path, content=content, headers={"content-type": TYPE, **named})


@pytest.mark.parametrize(
    "content",
    [
        spec_part() + source_part() + END,
        source_part() + spec_part(Content_Type="application/json") + END,
        spec_part(Content_Type="application/json; charset=UTF-8") + part("source", ZIP) + END,
        b"a preamble\r\n" + spec_part() + source_part(Content_Transfer_Encoding="binary") + END + b"an epilogue",
        part("spec", json.dumps(SPEC).encode(), file="spec.json", Content_Type="application/json")
        + source_part()
        + END,
    ],
    ids=["spec first", "source first", "no file name", "with a preamble", "spec as a file"],
)
async def test_an_archive_comes_beside_the_request(content: bytes) -> None:
    async with serving() as api:
        response = await send(api, content)

        assert response.status_code == 201, response.text
        assert response.json()["name"] == "cow"
        assert api.deployer.seen[0][1].source_type == "zip"
        (upload,) = api.deployer.uploads
        assert upload is not None
        assert (upload.sha256, upload.size_bytes) == (hashlib.sha256(ZIP).hexdigest(), len(ZIP))
        assert [path.read_bytes() for path in api.files] == [ZIP]


async def test_what_a_client_library_makes_of_it_is_understood() -> None:
    async with serving() as api:
        files = {
            "spec": (None, json.dumps(SPEC), "application/json"),
            "source": ("cow.zip", ZIP, "application/zip"),
        }
        assert (await api.ask("POST", "/api/v2/deploy", files=files)).status_code == 201


async def test_the_digest_is_of_both_parts_whatever_their_order() -> None:
    async with serving() as api:
        other = json.dumps({"source_type": "zip", "name": "cow"}).encode()
        for content in (
            spec_part() + source_part() + END,
            source_part() + spec_part(other) + END,
            spec_part() + source_part(archive(11)) + END,
            spec_part({**SPEC, "labels": {"a": "b"}}) + source_part() + END,
        ):
            assert (await send(api, content, idempotency_key="k")).status_code == 201
        first, second, third, fourth = (seen[2] for seen in api.deployer.seen)
        assert first == second
        assert len({first, third, fourth}) == 3


async def test_a_redeploy_takes_an_archive_into_its_owners_keeping() -> None:
    async with serving() as api:
        content = spec_part({"source_type": "zip"}) + source_part() + END
        response = await api.admin(
            "POST", "/instances/bob/memory/redeploy?wait=0", content=content, headers={"content-type": TYPE}
        )
        assert response.status_code == 202
        ((runner, body),) = api.deployer.revised
        assert (runner.instance.owner, body.source_type) == ("bob", "zip")
        kept = {path.parent.name for path in api.files}
        content = spec_part() + source_part() + END
        assert (await api.ask("POST", "/deploy", token=BOB, content=content, headers={"content-type": TYPE})).is_success
        assert {path.parent.name for path in api.files} == kept, "it is bob's, though an administrator sent it"


WRONG: list[tuple[str, bytes, int, str, set[str]]] = [
    ("no spec", source_part() + END, 422, "invalid_request", {"spec"}),
    ("no source", spec_part() + END, 422, "invalid_request", {"source"}),
    ("no parts", END, 422, "invalid_request", {"spec", "source"}),
    ("an empty source", spec_part() + source_part(b"") + END, 422, "invalid_request", {"source"}),
    ("an unknown part", spec_part() + part("sauce", b"x") + source_part() + END, 422, "invalid_request", {"sauce"}),
    ("a part without a name", spec_part() + part(None, b"x") + END, 422, "invalid_request", {""}),
    ("two specs", spec_part() + spec_part() + source_part() + END, 422, "invalid_request", {"spec"}),
    ("two sources", source_part() + source_part() + spec_part() + END, 422, "invalid_request", {"source"}),
    ("a wrong spec", spec_part({"name": "cow"}) + source_part() + END, 422, "invalid_request", {"/source_type"}),
    ("a wrong spec after its source", source_part() + spec_part({**SPEC, "nmae": 1}) + END, 422, "invalid_request", {"/nmae"}),
    ("a spec that is no JSON", spec_part(b"{") + source_part() + END, 400, "malformed_json", set()),
    ("a spec that is not UTF-8", spec_part(b"\xff") + source_part() + END, 400, "malformed_json", set()),
    ("a spec of another type", spec_part(Content_Type="text/yaml") + source_part() + END, 415, "unsupported_media_type", set()),
    ("a spec in another charset", spec_part(Content_Type="application/json; charset=utf-16") + source_part() + END, 415, "unsupported_media_type", set()),
    ("a source in base64", spec_part() + source_part(Content_Transfer_Encoding="base64") + END, 415, "unsupported_media_type", set()),
    ("a spec too large", spec_part(b" " * (SPEC_MAX_BYTES + 1)) + source_part() + END, 413, "payload_too_large", set()),
    ("cut short in the source", spec_part() + source_part()[:-20], 400, "malformed_json", set()),
    ("cut short before the source", spec_part(), 400, "malformed_json", set()),
    ("cut short in the end", spec_part() + source_part() + END[:-6], 400, "malformed_json", set()),
    ("nothing", b"", 400, "malformed_json", set()),
    ("another boundary", spec_part().replace(BOUNDARY.encode(), b"other") + END.replace(BOUNDARY.encode(), b"other"), 400, "malformed_json", set()),
    ("JSON in the guise of parts", json.dumps(SPEC).encode(), 400, "malformed_json", set()),
    ("a part without a disposition", f"--{BOUNDARY}\r\nX: y\r\n\r\nz\r\n".encode() + END, 400, "malformed_json", set()),
    ("fields that are not UTF-8", f"--{BOUNDARY}\r\n".encode() + b"Content-Disposition: form-data; name=\"\xff\"\r\n\r\nz\r\n" + END, 400, "malformed_json", set()),
    ("fields without an end", f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * 50_000, 400, "malformed_json", set()),
    ("a preamble without an end", b"x" * 500_000 + spec_part() + source_part() + END, 400, "malformed_json", set()),
    ("an epilogue without an end", spec_part() + source_part() + END + b"x" * 500_000, 400, "malformed_json", set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "status", "code", "expected"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
async def test_what_is_wrong_with_the_parts_is_told_and_nothing_is_kept(
    content: bytes, status: int, code: str, expected: set[str]
) -> None:
    async with serving() as api:
        document = problem_of(await send(api, content), status, code)

        assert pointers(document) == expected if expected else "errors" not in document
        assert not api.deployer.seen
        assert api.files == []
        assert (await send(api, spec_part() + source_part() + END)).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a b "',
        "multipart/mixed; boundary=x",
    ],
)
async def test_a_type_that_cannot_be_read_by_is_a_415(content_type: str) -> None:
    async with serving() as api:
        content = spec_part() + source_part() + END
        response = await api.ask("POST", "/deploy", content=content, headers={"content-type": content_type})
        problem_of(response, 415, "unsupported_media_type")


async def test_compressed_parts_are_refused() -> None:
    async with serving() as api:
        problem_of(
            await send(api, spec_part() + source_part() + END, content_encoding="gzip"), 415, "unsupported_media_type"
        )


@pytest.mark.parametrize("path", ["/tokens", "/instances/memory/rollback"])
async def test_only_routes_that_take_archives_take_parts(path: str) -> None:
    async with serving() as api:
        problem_of(await send(api, spec_part() + source_part() + END, path), 415, "unsupported_media_type")


async def test_a_refusal_after_the_upload_leaves_nothing() -> None:
    async with serving() as api:
        api.deployer.error = ArchiveRejected("'../evil' leads out of the archive")
        problem_of(await send(api, spec_part() + source_part() + END), 422, "archive_rejected")
        assert api.files == []


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (TOKENS[Role.CALLER], "/deploy", 403),
        (None, "/deploy", 401),
        (TOKENS[Role.DEPLOYER], "/instances/nothing/redeploy", 404),
        (TOKENS[Role.DEPLOYER], "/deploy?wiat=1", 422),
    ],
)
async def test_who_may_not_is_told_before_anything_arrives(token: str | None, path: str, status: int) -> None:
    async with serving() as api:
        headers = {"content-type": TYPE}
        response = await api.ask("POST", path, token=token, content=spec_part() + source_part() + END, headers=headers)
        assert response.status_code == status
        assert not api.folder.joinpath("uploads").exists()


async def test_a_wrong_spec_is_told_before_its_file_has_arrived() -> None:
    async with serving() as api:
        stream = await trio.open_tcp_stream("127.0.0.1", api.port)
        head = request(
            "POST",
            "/deploy",
            token=TOKENS[Role.DEPLOYER],
            content_type=None,
            Content_Type=TYPE,
            Content_Length=str(50 * 2**20),
        )
        async with stream:
            await stream.send_all(head + spec_part({"name": "cow"}) + source_part()[:100])
            assert b" 422 " in await stream.receive_some(65536)


ALMOST = b"\r\n--b0undar" * 6554
"""What may be the beginning of an end, all the way."""


async def test_a_large_archive_is_taken_whole() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield spec_part() + source_part(b"").removesuffix(b"\r\n")
        for _ in range(300):
            yield ALMOST
        yield b"\r\n" + END

    async with serving() as api:
        response = await api.ask("POST", "/deploy", content=body(), headers={"content-type": TYPE})
        assert response.status_code == 201, response.text
        (kept,) = api.files
        assert kept.stat().st_size == 300 * len(ALMOST)


async def test_one_beyond_the_limit_is_cut_off_without_a_declared_length() -> None:
    async with serving() as api:
        stream = await trio.open_tcp_stream("127.0.0.1", api.port)
        chunk = b"%x\r\n%b\r\n" % (len(ALMOST), ALMOST)

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(chunk)

        begin = spec_part() + source_part(b"").removesuffix(b"\r\n")
        head = request(
            "POST",
            "/deploy",
            token=TOKENS[Role.DEPLOYER],
            content_type=None,
            Content_Type=TYPE,
            Transfer_Encoding="chunked",
        )
        async with stream, trio.open_nursery() as nursery:
            await stream.send_all(head + b"%x\r\n%b\r\n" % (len(begin), begin))
            nursery.start_soon(flood)
            assert b" 413 " in await stream.receive_some(65536)
            nursery.cancel_scope.cancel()
        assert not api.deployer.seen
        with trio.fail_after(10):
            while api.files:
                await trio.sleep(0.01)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing() -> None:
    async with serving() as api:
        stream = await trio.open_tcp_stream("127.0.0.1", api.port)
        head = request(
            "POST",
            "/deploy",
            token=TOKENS[Role.DEPLOYER],
            content_type=None,
            Content_Type=TYPE,
            Content_Length=str(50 * 2**20),
        )
        await stream.send_all(head + spec_part() + source_part(bytes(3 * 2**20))[:-4])
        with trio.fail_after(10):
            while not api.files:
                await trio.sleep(0.01)
            await stream.aclose()
            while api.files:
                await trio.sleep(0.01)
        assert not api.deployer.seen


async def begin_upload(api: Api, token: str, sent: bytes, size: int = 50 * 2**20) -> trio.SocketStream:
    """An upload that stops in the middle of its file."""
    stream = await trio.open_tcp_stream("127.0.0.1", api.port)
    head = request("POST", "/deploy", token=token, content_type=None, Content_Type=TYPE, Content_Length=str(size))
    await stream.send_all(head + spec_part() + source_part(sent).removesuffix(b"\r\n"))
    return stream


async def test_an_owner_has_two_uploads_under_way_and_the_next_is_told_to_wait() -> None:
    content = spec_part() + source_part() + END
    async with serving() as api:
        idle = [await begin_upload(api, TOKENS[Role.DEPLOYER], bytes(2**21)) for _ in range(UPLOADS_PER_OWNER)]
        while len(api.files) < UPLOADS_PER_OWNER:
            await trio.sleep(0.01)

        response = await send(api, content)
        document = problem_of(response, 429, "rate_limited")
        assert "2 uploads" in document["detail"]
        assert int(response.headers["retry-after"]) > 0
        assert len(api.files) == UPLOADS_PER_OWNER
        assert (await api.ask("POST", "/deploy", token=BOB, content=content, headers={"content-type": TYPE})).is_success

        await idle.pop().aclose()
        while (response := await send(api, content)).status_code == 429:
            await trio.sleep(0.01)
        assert response.status_code == 201, response.text
        await idle.pop().aclose()
        while api.deployer.inbox.under_way.held_bytes:
            await trio.sleep(0.01)


async def test_uploads_under_way_share_the_disk_and_the_next_is_told_to_wait() -> None:
    async with serving() as api:
        under_way = api.deployer.inbox.under_way
        under_way.max_bytes = 3 * 2**20
        idle = await begin_upload(api, BOB, bytes(2**21), size=5 * 2**19)
        while under_way.held_bytes < 2**20:
            await trio.sleep(0.01)
        response = await send(api, spec_part() + source_part(archive(5 * 2**19)) + END)
        problem_of(response, 503, "overloaded")
        assert int(response.headers["retry-after"]) > 0
        assert not api.deployer.seen
        assert (await send(api, spec_part() + source_part() + END)).status_code == 201, "a small one has room"
        await idle.aclose()


async def test_large_deploys_in_json_take_no_room_of_calls_and_one_owner_has_one() -> None:
    async with serving() as api:
        held = api.services.guards.deploy_bodies.budget
        large = request("POST", "/deploy", token=TOKENS[Role.DEPLOYER], Content_Length=str(64 * 2**20))
        large = large.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")
        async with await trio.open_tcp_stream("127.0.0.1", api.port) as idle:
            await idle.send_all(large + b"{")
            while not held.held_bytes:
                await trio.sleep(0.01)
            async with await trio.open_tcp_stream("127.0.0.1", api.port) as second:
                await second.send_all(large + b"{")
                answer = await second.receive_some(65536)
            assert b" 429 " in answer
            assert b"retry-after" in answer
            assert not api.services.guards.bodies.held_bytes
            content = json.dumps(
                {"name": "cow", "source_type": "direct", "source_data": "#" * 100_000, "language": "python"}
            )
            headers = {"content-type": "application/json"}
            assert (await api.ask("POST", "/deploy", token=BOB, content=content, headers=headers)).is_success
        while held.held_bytes:
            await trio.sleep(0.01)
