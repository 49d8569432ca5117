"""Files from a Hub repository, through the cache of :mod:`huggingface_hub`; every failure becomes one clear line."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardiac_ct_fm.errors import OutputError, WeightsError


@dataclass(frozen=True)
class HubOptions:
    """How to talk to the Hub; the names are those of :func:`huggingface_hub.hf_hub_download`."""

    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    token: str | bool | None = None

    def __repr__(self) -> str:
        """All but the token, which never appears in a log."""
        return f"HubOptions(revision={self.revision!r}, local_files_only={self.local_files_only})"

    def __getstate__(self) -> dict[str, Any]:
        """All but the token, so that no pickled model holds it; the one of ``hf auth login`` is used then."""
        return {**vars(self), "token": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> HubOptions:
        """Itself, token and all: it never changes."""
        return self


class HubFetcher:
    """Fetches files of one commit of a Hub repository through the cache of :mod:`huggingface_hub`.

    The first file fixes the commit, so that files of one model never come from two commits.
    """

    def __init__(self, repo_id: str, options: HubOptions) -> None:
        self.repo_id = repo_id
        self.options = options
        self.revision = options.revision
        self._fetched: dict[str, Path | None] = {}

    def __call__(self, file: str) -> Path | None:
        """Local path of a file, or None when the repository does not have it; asked for once.

        Raises:
            WeightsError: it cannot be fetched; the text says why and what to do. The token is never in it.
        """
        if file not in self._fetched:
            self._fetched[file] = self._fetch(file)
        return self._fetched[file]

    def _fetch(self, file: str) -> Path | None:
        """Ask the cache, then the Hub.

        Raises:
            WeightsError: it cannot be fetched.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        o = self.options
        try:
            path = Path(
                hf_hub_download(
                    self.repo_id,
                    file,
                    revision=self.revision,
                    cache_dir=o.cache_dir,
                    local_files_only=o.local_files_only,
                    force_download=o.force_download,
                    token=o.token,
                    library_name="cardiac-ct-fm",
                )
            )
        except RemoteEntryNotFoundError:
            return None
        except Exception as error:  # the transport's own errors belong to the client's HTTP library
            if isinstance(error, LocalEntryNotFoundError):
                known = try_to_load_from_cache(self.repo_id, file, cache_dir=o.cache_dir, revision=self.revision)
                if known is not None and not isinstance(known, str):
                    return None  # the cache remembers that this commit has no such file
            raise WeightsError(self._explain(file, error)) from error
        snapshots = [parent for parent in path.parents if parent.parent.name == "snapshots"]
        if snapshots:
            self.revision = snapshots[0].name
        return path

    def _explain(self, file: str, error: Exception) -> str:
        """One line for a failed download."""
        from huggingface_hub import constants
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        where = f"{self.repo_id}/{file}"
        cause = (
            error.__cause__ if isinstance(error, LocalEntryNotFoundError | ValueError) and error.__cause__ else error
        )
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if isinstance(error, HFValidationError):
            return f"{self.repo_id!r} is not the name of a Hub repository; write it as org/name."
        if self.options.local_files_only or constants.is_offline_mode():
            return f"{where} is not in the cache and the network is switched off; load it once with the network on."
        if isinstance(error, GatedRepoError):
            return f"{where}: access has to be granted by its owners; ask on its page, then give a token."
        if isinstance(error, RevisionNotFoundError):
            return f"{self.repo_id} has no revision {self.revision!r}; give a branch, tag or commit that it has."
        if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
            return (
                f"{self.repo_id} was not found on {constants.ENDPOINT}, or your token gives no access (HTTP {status}); "
                "check the name, or log in with `hf auth login`."
            )
        if status is not None:
            return f"{where} cannot be fetched: {constants.ENDPOINT} answered HTTP {status}; try again later."
        return (
            f"{where} cannot be fetched from {constants.ENDPOINT} ({type(cause).__name__}); check the connection and "
            f"try again, or, where a folder was meant, its path: there is none called {self.repo_id} here."
        )


def push_folder(
    folder: str | Path,
    repo_id: str,
    message: str,
    *,
    stale: re.Pattern[str] | None = None,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
) -> str:
    """Commit a folder to a Hub repository, which is made where it does not exist.

    Args:
        folder: what is uploaded, all of it.
        repo_id: ``org/name``.
        message: title of the commit.
        stale: paths in the repository that are deleted along with it, where the folder does not have them; all
            else there stays.
        private: whether a new repository is private.
        token: access token.
        branch: branch to commit to; ``main`` when None.

    Returns:
        The commit's address.

    Raises:
        OutputError: the Hub refuses or cannot be reached; the text never holds the token.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token, library_name="cardiac-ct-fm")
    try:
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        # The client's patterns go across "/" and know no digits alone; so the names are matched here.
        there = api.list_repo_files(name, revision=branch) if stale else []
        old = [glob.escape(file) for file in there if stale and stale.fullmatch(file)]
        url = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message=message, revision=branch, delete_patterns=old or None
        )
        return str(url)
    except HFValidationError as error:
        raise OutputError(f"{repo_id!r} is not the name of a Hub repository; write it as org/name.") from error
    except Exception as error:  # the transport's own errors belong to the client's HTTP library
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403):
            raise OutputError(
                f"{constants.ENDPOINT} does not let you write to {repo_id} (HTTP {status}); log in with `hf auth "
                "login` or give a token with write access."
            ) from error
        what = f"answered HTTP {status}" if status else f"cannot be reached ({type(error).__name__})"
        raise OutputError(f"{repo_id} was not written: {constants.ENDPOINT} {what}; try again later.") from error
