"""Files of a model hub: fetched once, whole or not at all, and what is wrong is said. Against a fake hub."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve import hub, transfer
from serve.errors import AuthFailed, ConfigError, EngineMissing, ParleyError, ProviderDown
from tests.fake_hub import COMMIT, FakeHub, point_to, running, sha256

pytestmark = pytest.mark.unit

WEIGHTS = bytes(range(256)) * 4096
FILE = "hf://owner/model/weights.gguf"
FOLDER = "hf://owner/model"
FILES = {
    "owner/model/weights.gguf": WEIGHTS,
    "owner/model/config.json": b'{"kind": "tiny"}',
    "owner/model/voices/en/amy.onnx": b"amy" * 500,
    "owner/model/voices/en/amy.onnx.json": b"{}",
    "owner/model/empty.txt": b"",
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(transfer, "STALL_SECONDS", 10.0)
    with running(dict(FILES)) as fake:
        point_to(fake, monkeypatch, tmp_path / "cache")
        yield fake


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (FILE, ("owner/model", "main", "weights.gguf")),
        ("hf://o-1/m.2@v1.0/a/b.onnx", ("o-1/m.2", "v1.0", "a/b.onnx")),
        (FOLDER, ("owner/model", "main", "")),
        ("hf://owner/model@v1", ("owner/model", "v1", "")),
        ("hf://owner/model/voices/en/", ("owner/model", "main", "voices/en/")),
    ],
)
def test_references_are_taken_apart_and_written_back(text: str, parts: tuple[str, str, str]) -> None:
    parsed = hub.parse(text)
    assert (parsed.repo, parsed.revision, parsed.file) == parts
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text",
    [
        "hf://owner",
        "hf://",
        "hf://a/../b",
        "hf://o/m/../../x",
        "hf://o/m/a//b",
        "hf://o/m@/x",
        "hf://o--x/m",
        "hf:/o/m",
    ],
)
def test_a_malformed_reference_shows_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match="hf://owner/repo@revision/file"):
        hub.parse(text)


def test_a_path_stays_a_path() -> None:
    assert hub.local_path("~/model.gguf") == Path.home() / "model.gguf"


def test_a_file_is_fetched_once(fake: FakeHub) -> None:
    assert hub.cached(FILE) is None
    assert hub.size(FILE) == len(WEIGHTS)
    assert fake.downloads == []
    told: list[int] = []
    path = hub.fetch(FILE, told.append)
    assert path.read_bytes() == WEIGHTS
    assert told[-1] == len(WEIGHTS)
    assert told == sorted(told)
    asked = len(fake.requests)
    assert hub.local_path(FILE) == hub.cached(FILE) == path
    assert hub.size(FILE) == len(WEIGHTS)
    assert len(fake.requests) == asked, "what is in the cache needs no network"


def test_other_tools_find_it(fake: FakeHub) -> None:
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType]

    path = hub.fetch(FILE)
    found = hf_hub_download("owner/model", "weights.gguf", cache_dir=hub.cache(), local_files_only=True)
    assert Path(found) == path
    assert path.resolve().name == sha256(WEIGHTS)


def test_a_repository_and_a_folder_of_it(fake: FakeHub) -> None:
    voices = hub.fetch("hf://owner/model/voices/en/")
    assert sorted(path.name for path in voices.iterdir()) == ["amy.onnx", "amy.onnx.json"]
    assert hub.cached("hf://owner/model/voices/en/") == voices
    assert hub.cached(FOLDER) is None, "a part is not the whole"
    assert hub.size(FOLDER) == sum(map(len, FILES.values()))
    whole = hub.fetch(FOLDER)
    assert {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()} == {
        name.removeprefix("owner/model/") for name in FILES
    }
    assert len(fake.downloads) == len(FILES), "what the folder had brought was not fetched again"
    assert hub.size(FOLDER) == sum(map(len, FILES.values()))


def test_a_mirror_that_lists_names_alone(fake: FakeHub) -> None:
    fake.bare = True
    assert (hub.fetch(FOLDER) / "weights.gguf").read_bytes() == WEIGHTS


def test_a_pinned_revision(fake: FakeHub) -> None:
    assert hub.fetch(f"hf://owner/model@{COMMIT}/config.json") == hub.fetch("hf://owner/model@v1/config.json")


def test_a_cut_connection_is_taken_up_again(fake: FakeHub) -> None:
    fake.cut = [300_000, 0, 300_000]
    assert hub.fetch(FILE).read_bytes() == WEIGHTS
    assert [request.partition("bytes=")[2] for request in fake.downloads] == ["", "300000-", "300000-", "600000-"]


def test_a_download_that_was_stopped_goes_on_later(fake: FakeHub) -> None:
    class Stopped(Exception):
        pass

    def stop(have: int) -> None:
        if have > 400_000:
            raise Stopped

    with pytest.raises(Stopped):
        hub.fetch(FILE, stop)
    assert hub.cached(FILE) is None
    told: list[int] = []
    assert hub.fetch(FILE, told.append).read_bytes() == WEIGHTS
    assert min(told) > 400_000
    assert "bytes=" in fake.downloads[-1]


def test_a_hub_that_cannot_send_the_rest_sends_all(fake: FakeHub) -> None:
    fake.ranges, fake.cut = False, [300_000]
    assert hub.fetch(FILE).read_bytes() == WEIGHTS


def test_a_hub_that_only_cuts_is_given_up_and_what_came_is_kept(fake: FakeHub) -> None:
    fake.cut = [100_000] + [0] * 20
    with pytest.raises(ProviderDown, match="does not come"):
        hub.fetch(FILE)
    fake.cut = []
    assert hub.fetch(FILE).read_bytes() == WEIGHTS
    assert fake.downloads[-1].endswith("bytes=100000-")


def test_silence_is_bounded(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.size(FILE)
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
    fake.hang = threading.Event()
    with pytest.raises(ProviderDown, match="does not answer"):
        hub.fetch(FILE)
    lock, file = hub.cache() / "lock", transfer.File("weights.gguf", len(WEIGHTS), sha256(WEIGHTS))
    url = f"{fake.endpoint}/owner/model/resolve/main/weights.gguf"
    with pytest.raises(ProviderDown, match="ReadTimeout"):
        transfer.receive(url, dict, file, hub.cache() / "blob", lock, lambda _: None)


@pytest.mark.parametrize("reference", [FILE, "hf://owner/model/config.json"])
def test_wrong_bytes_are_deleted_and_refused(fake: FakeHub, reference: str) -> None:
    fake.wrong = True
    with pytest.raises(ProviderDown, match="checksum"):
        hub.fetch(reference)
    assert hub.cached(reference) is None
    assert [path for path in hub.cache().rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    fake.wrong = False
    assert hub.fetch(reference).is_file()


def test_two_at_once_download_it_once(fake: FakeHub) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(hub.fetch, [FILE] * 4))
    assert len(paths) == 1
    assert len(fake.downloads) == 1


def test_whoever_waits_for_another_that_makes_no_progress_gives_up(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.05)
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(flush=True); input()",
            lock,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout
        holder.stdout.readline()
        file = transfer.File("weights.gguf", len(WEIGHTS), sha256(WEIGHTS))
        with pytest.raises(ProviderDown, match="another process"):
            transfer.receive(fake.endpoint, dict, file, tmp_path / "blob", lock, lambda _: None)
    finally:
        holder.communicate(b"\n", timeout=10)


def test_offline_only_the_cache_is_used(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.fetch(FILE)
    offline(monkeypatch)
    asked = len(fake.requests)
    assert hub.local_path(FILE).read_bytes() == WEIGHTS
    for work in (hub.local_path, hub.size):
        with pytest.raises(EngineMissing, match="HF_HUB_OFFLINE is set: `parley fetch"):
            work("hf://owner/model/config.json")
        with pytest.raises(EngineMissing, match="parley fetch"):
            work("hf://other/model")
    assert len(fake.requests) == asked


def test_offline_a_folder_that_another_tool_brought_is_taken(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = hub.fetch(FOLDER)
    for marker in (hub.cache() / "models--owner--model" / ".parley").iterdir():
        marker.unlink()
    assert hub.cached(FOLDER) is None
    offline(monkeypatch)
    assert hub.local_path(FOLDER) == folder


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("hf://owner/model/wieghts.gguf", EngineMissing, r"owner/model has no 'wieghts\.gguf'"),
        ("hf://owner/model/nothing/", EngineMissing, "has nothing at 'nothing/'"),
        ("hf://owner/model@v9/weights.gguf", EngineMissing, "no revision 'v9'"),
        ("hf://owner/lost/weights.gguf", EngineMissing, "the hub has no owner/lost, or it is private; HF_TOKEN is not"),
        ("hf://owner/lost", EngineMissing, "the hub has no owner/lost"),
    ],
)
def test_what_is_not_there_is_named(fake: FakeHub, reference: str, error: type[ParleyError], said: str) -> None:
    for work in (hub.size, hub.fetch):
        with pytest.raises(error, match=said):
            work(reference)


def test_a_licence_to_accept_and_a_key_to_set(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.gated = {"owner/model"}
    with pytest.raises(AuthFailed, match=r"licence to be accepted at http.*owner/model.*HF_TOKEN is not set"):
        hub.fetch(FILE)
    with pytest.raises(AuthFailed, match="licence"):
        hub.fetch(FOLDER)
    fake.gated, fake.token = set(), "hf_secret"
    with pytest.raises(AuthFailed, match=r"no access to owner/model: .*HF_TOKEN is not set"):
        hub.fetch(FILE)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(ParleyError) as refused:
        hub.fetch(FILE)
    assert "hf_other" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.fetch(FILE).read_bytes() == WEIGHTS


def test_a_hub_that_is_away(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.status = 500
    with pytest.raises(ProviderDown):
        hub.fetch(FOLDER)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ProviderDown, match=r"the hub at http://127\.0\.0\.1:9 does not answer"):
        hub.size(FOLDER)


@pytest.mark.parametrize("reference", [FILE, FOLDER])
def test_what_is_no_hub_is_named(fake: FakeHub, reference: str) -> None:
    fake.status = 200
    with pytest.raises(ProviderDown, match="does not answer"):
        hub.fetch(reference)


def test_names_that_lead_out_of_the_cache_are_refused(fake: FakeHub) -> None:
    fake.files["owner/model/../../../escape"] = b"x" * 2000
    with pytest.raises(ProviderDown, match="cannot be right"):
        hub.fetch(FOLDER)


def test_a_full_disk_is_said_before_anything_is_fetched(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=2**20))
    with pytest.raises(EngineMissing, match=r"needs 1 MB more, and .* has 1 MB left"):
        hub.fetch(FILE)
    assert fake.downloads == []


def test_a_cache_that_cannot_be_written_is_named(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineMissing, match=r"cannot be kept in .*HF_HOME names another"):
        hub.fetch(FILE)


async def test_an_engine_that_takes_a_path_takes_a_reference(fake: FakeHub) -> None:
    from serve import registry

    engine = registry.create("llamacpp", {"path": FILE})
    with pytest.raises(EngineMissing, match=r"llama\.cpp cannot load .*models--owner--model.*weights\.gguf"):
        await engine.load()
    assert hub.cached(FILE)
