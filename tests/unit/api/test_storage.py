"""The store of files: a folder, memory, and links that Azure and S3 sign by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import AzureStore, LocalStore, MemoryStore, S3Store

from api.storage import Storage, StorageAway, attachment, folder_of, open_storage
from serve.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(LocalStore(tmp_path) if request.param == "folder" else MemoryStore())


async def whole(storage: Storage, path: str) -> bytes | None:
    pieces = await storage.read(path)
    return None if pieces is None else b"".join([piece async for piece in pieces])


async def test_files_come_back_as_they_went(storage: Storage) -> None:
    large = bytes(range(256)) * 4096
    for name, data in (("a/one", b"hello"), ("a/two", large), ("b/three", b"")):
        await storage.put(name, data, "text/plain", "größe.txt")
        assert await whole(storage, name) == data
    assert await storage.link("a/one", 60) is None
    await storage.delete("b/three")
    await storage.delete("b/three")
    assert await whole(storage, "b/three") is None
    await storage.put("ab/one", b"stays", "text/plain", "x")
    await storage.drop("a")
    assert await whole(storage, "a/one") is None
    assert await whole(storage, "ab/one") == b"stays"


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "a//b"])
async def test_no_path_leads_out(storage: Storage, path: str) -> None:
    with pytest.raises(StorageAway):
        await storage.put(path, b"x", "text/plain", "x")


def test_calls_with_odd_names_have_folders_of_their_own() -> None:
    folders = {folder_of("ten_a", "calls", call) for call in ("..", "../..", "call/../x", "CALL", "call")}
    assert len(folders) == 5
    assert all(each.startswith("ten_a/calls/") and each.count("/") == 2 and ".." not in each for each in folders)


async def test_a_store_that_signs_gives_links_of_its_own() -> None:
    s3 = Storage(S3Store("bucket", prefix="pre", region="eu-central-1", access_key_id="id", secret_access_key="key"))
    link = await s3.link("ten/file", 60)
    assert link is not None
    assert "/bucket/pre/ten/file?" in link
    assert "X-Amz-Expires=60" in link
    azure = Storage(AzureStore("box", account_name="account", account_key="a2V5"))
    link = await azure.link("ten/file", 60)
    assert link is not None
    assert link.startswith("https://account.blob.core.windows.net/box/ten/file?")
    assert "sp=r" in link


def test_the_profile_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path / "home"))
    open_storage(None)
    assert (tmp_path / "home" / "files").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_storage("az://container/prefix")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    open_storage("az://container/prefix")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    open_storage("s3://bucket")


@pytest.mark.parametrize("name", ['a"b.txt', "größe.txt", "a\\b", "x%22.txt", "日本.pdf"])
def test_names_in_headers_cannot_break_them(name: str) -> None:
    header = attachment(name)
    header.encode("ascii")
    assert header.count('"') == 2
    assert "\n" not in header
