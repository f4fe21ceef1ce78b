"""Files of a model hub by reference: `hf://owner/repo[@revision]/file`, a folder of it, or all of it.

huggingface_hub knows the hub's API, its errors, its key and the layout of a cache that other tools share. It begins a
download that was cut off in another process again, and checks no sum, so the transfer itself is in `serve.transfer`.
The environment decides as it does for every tool of that hub: HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from serve.errors import AuthFailed, ConfigError, EngineMissing, ParleyError, ProviderDown, RateLimited
from serve.transfer import File, receive

SCHEME = "hf://"
ANSWER_SECONDS = 10.0
"""The hub says within this long what there is."""

Progress = Callable[[int], None]
"""Told how many bytes of a reference are here; what it raises ends the download, which can be taken up again."""

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_REFERENCE = re.compile(rf"hf://(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9_.-]+))?(?:/(?P<file>[^\\]*))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reference names.

    Attributes:
        repo: `owner/repo`.
        revision: A branch, a tag or a commit.
        file: A file of the repository; a folder of it ends with a slash; "" is the whole repository.
    """

    repo: str
    revision: str = "main"
    file: str = ""

    @property
    def folder(self) -> bool:
        """Whether it names more than one file."""
        return self.file == "" or self.file.endswith("/")

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{revision}{'/' if self.file else ''}{self.file}"


def is_reference(value: object) -> bool:
    """Whether an option's value points to the hub."""
    return isinstance(value, str) and value.startswith(SCHEME)


def parse(reference: str) -> Reference:
    """Take a reference apart.

    Raises:
        ConfigError: It is written wrongly; the message shows the form.
    """
    match = _REFERENCE.fullmatch(reference)
    file = (match["file"] or "") if match else ""
    parts = file.removesuffix("/").split("/") if file else []
    if not match or "--" in match["repo"] or ".." in match["repo"] or any(part in {"", ".", ".."} for part in parts):
        raise ConfigError(
            f"{reference!r} is no reference to a hub; write hf://owner/repo/file, hf://owner/repo@revision/file, "
            "hf://owner/repo/folder/ or hf://owner/repo"
        )
    return Reference(match["repo"], match["revision"] or "main", file)


def endpoint() -> str:
    """Return the hub's address."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def cache() -> Path:
    """Return the folder that keeps what was downloaded."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def offline() -> bool:
    """Whether the environment forbids the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def local_path(reference: str) -> Path:
    """Return where an option's file or folder is on this machine; what the hub has is fetched where it is missing.

    What is in the cache is used without asking the hub, also where a branch has moved on: pin a revision to choose.

    Args:
        reference: A path, or a reference to the hub. Blocks: call it in a thread.

    Raises:
        ConfigError: The reference is written wrongly.
        EngineMissing: The hub has no such thing, the disk is full, or it is missing and HF_HUB_OFFLINE is set.
        AuthFailed: The hub wants a key, or its licence accepted.
        ProviderDown: The hub is away, or sent something else than it said.
    """
    return fetch(reference) if is_reference(reference) else Path(reference).expanduser()


def cached(reference: str) -> Path | None:
    """Return where a reference is in the cache, whole; None where it is not. Asks nobody."""
    return _cached(parse(reference))


def size(reference: str) -> int:
    """Return the bytes of all files of a reference: of the cache where they are there, else as the hub says.

    Raises:
        ParleyError: As `local_path`.
    """
    parsed = parse(reference)
    found = _cached(parsed)
    if found:
        files = [path for path in found.rglob("*") if path.is_file()] if found.is_dir() else [found]
        return sum(path.stat().st_size for path in files)
    _refuse_offline(parsed)
    return sum(file.size for file in _listing(parsed)[1])


def fetch(reference: str, progress: Progress | None = None) -> Path:
    """Download what is missing of a reference, going on where an earlier download was cut off.

    Args:
        reference: A reference to the hub.
        progress: Told how much is here.

    Returns:
        The file or folder in the cache.

    Raises:
        ParleyError: As `local_path`.
    """
    parsed = parse(reference)
    found = _cached(parsed)
    if found:
        return found
    _refuse_offline(parsed)
    commit, files = _listing(parsed)
    store, done = _store(parsed), 0

    def tell(have: int) -> None:
        if progress:
            progress(have)

    with _disk(parsed):
        for file in files:
            before = done
            blob = store / "blobs" / file.digest
            lock = cache() / ".locks" / store.name / f"{file.digest}.lock"
            if not blob.exists():
                receive(_url(parsed, commit, file.name), _headers, file, blob, lock, lambda have: tell(before + have))  # noqa: B023  # called at once
            done += file.size
            tell(done)
        folder = store / "snapshots" / commit
        for file in files:
            _link(store / "blobs" / file.digest, folder / file.name)
        if parsed.revision != commit:
            _write(store / "refs" / parsed.revision, commit)
        if parsed.folder:
            _write(_listed(parsed, commit), json.dumps([file.name for file in files]))
    return folder / parsed.file


def _cached(parsed: Reference) -> Path | None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import EntryNotFoundError

    if not parsed.folder:
        path = try_to_load_from_cache(parsed.repo, parsed.file, cache_dir=cache(), revision=parsed.revision)
        return Path(path) if isinstance(path, str) else None
    ref = _store(parsed) / "refs" / parsed.revision
    commit = ref.read_text().strip() if ref.is_file() else parsed.revision
    folder = _store(parsed) / "snapshots" / commit
    try:
        names = json.loads(_listed(parsed, commit).read_text())
    except (OSError, ValueError):
        names = None
    if names is not None:
        return folder / parsed.file if all((folder / name).exists() for name in names) else None
    if not offline():
        return None
    # Put there by another tool, in an image for instance: taken as it is, for nobody can be asked.
    try:
        whole = Path(snapshot_download(parsed.repo, revision=parsed.revision, cache_dir=cache(), local_files_only=True))
    except (EntryNotFoundError, OSError):
        return None
    return whole / parsed.file if (whole / parsed.file).is_dir() else None


def _listing(parsed: Reference) -> tuple[str, list[File]]:
    """Ask the hub what a reference holds: the commit and its files."""
    from huggingface_hub import HfApi

    with _errors(parsed):
        if not parsed.folder:
            commit, file = _head(parsed, parsed.revision, parsed.file)
            return commit, [file]
        api = HfApi(endpoint=endpoint())
        info = api.model_info(parsed.repo, revision=parsed.revision, files_metadata=True, timeout=ANSWER_SECONDS)
        commit, files = info.sha or "", list[File]()
        for found in info.siblings or ():
            if not found.rfilename.startswith(parsed.file):
                continue
            digest = found.lfs.sha256 if found.lfs else found.blob_id
            if digest and found.size is not None:
                files.append(File(found.rfilename, found.size, digest))
            else:
                # A mirror that does not know the question for sizes.
                files.append(_head(parsed, commit, found.rfilename)[1])
    _check(commit, files, parsed)
    return commit, files


def _head(parsed: Reference, revision: str, name: str) -> tuple[str, File]:
    from huggingface_hub import get_hf_file_metadata  # pyright: ignore[reportUnknownVariableType]

    url = _url(parsed, revision, name)
    found = get_hf_file_metadata(url, timeout=ANSWER_SECONDS, endpoint=endpoint())
    file = File(name, found.size or 0, found.etag or "")
    _check(found.commit_hash or "", [file], parsed)
    return found.commit_hash or "", file


def _check(commit: str, files: list[File], parsed: Reference) -> None:
    """Refuse what no hub says: names and sums become paths, and must stay inside the cache."""
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        raise ProviderDown(f"{endpoint()} does not answer as a model hub does; is HF_ENDPOINT right?")
    if not files:
        raise EngineMissing(f"{parsed.repo} has nothing at {parsed.file or 'all'!r} in revision {parsed.revision}")
    for file in files:
        inside = all(part not in {"", ".", ".."} for part in file.name.split("/")) and "\\" not in file.name
        if not inside or not re.fullmatch(r"[A-Za-z0-9_-]{8,128}", file.digest):
            raise ProviderDown(f"{endpoint()} names a file of {parsed.repo} in a way that cannot be right")


def _url(parsed: Reference, revision: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(parsed.repo, name, revision=revision, endpoint=endpoint())


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers  # pyright: ignore[reportUnknownVariableType]

    return build_hf_headers(library_name="parley")


def _store(parsed: Reference) -> Path:
    return cache() / f"models--{parsed.repo.replace('/', '--')}"


def _listed(parsed: Reference, commit: str) -> Path:
    """Return the file that says which files a folder has: without it half a folder would look like a whole one."""
    return _store(parsed) / ".parley" / f"{commit}{parsed.file.replace('/', '--')}.json"


def _refuse_offline(parsed: Reference) -> None:
    if offline():
        raise EngineMissing(
            f"{parsed} is not in {cache()}, and HF_HUB_OFFLINE is set: `parley fetch --profile F` gets it once"
        )


def _link(blob: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    beside = pointer.with_name(f".{pointer.name}.{os.getpid()}-{threading.get_ident()}")
    beside.unlink(missing_ok=True)
    try:
        beside.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        # Some network file systems have no links.
        shutil.copyfile(blob, beside)
    beside.replace(pointer)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    beside.write_text(text)
    beside.replace(path)


@contextlib.contextmanager
def _disk(parsed: Reference) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EngineMissing(f"{parsed} cannot be kept in {cache()}: {error.strerror}; HF_HOME names another") from None


@contextlib.contextmanager
def _errors(parsed: Reference) -> Generator[None]:
    """Translate the library's errors; the key is in none of them."""
    import huggingface_hub
    from huggingface_hub import errors

    # httpx's, of the generation that the library is built on.
    transport: Any = cast(Any, errors).HTTPError
    token = "" if huggingface_hub.get_token() else "; HF_TOKEN is not set"
    try:
        yield
    except errors.GatedRepoError:
        message = f"{parsed.repo} asks for its licence to be accepted at {endpoint()}/{parsed.repo}"
        raise AuthFailed(f"{message}, by the account of HF_TOKEN{token}") from None
    except errors.RepositoryNotFoundError:
        raise EngineMissing(f"the hub has no {parsed.repo}, or it is private{token}") from None
    except errors.RevisionNotFoundError:
        raise EngineMissing(f"{parsed.repo} has no revision {parsed.revision!r}") from None
    except errors.EntryNotFoundError:
        raise EngineMissing(f"{parsed.repo} has no {parsed.file!r} in revision {parsed.revision!r}") from None
    except errors.HfHubHTTPError as error:
        raise _refusal(error.response.status_code, parsed.repo, token) from None
    except (transport, OSError, ValueError) as error:
        raise ProviderDown(f"the hub at {endpoint()} does not answer ({type(error).__name__})") from None


def _refusal(status: int, what: str, token: str) -> ParleyError:
    """Return the error for an HTTP status of the hub."""
    if status in {401, 403}:
        return AuthFailed(f"the hub gives no access to {what}: check HF_TOKEN and its rights{token}")
    if status == 404:
        return EngineMissing(f"the hub has no {what}{token}")
    if status == 429:
        return RateLimited(f"the hub takes no more requests for now ({what})")
    return ProviderDown(f"the hub answered {status} for {what}")
