"""Other certificates for other names: Server Name Indication (RFC 6066 section 3)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popd.server.tls import add_certificate, load_certificates, names_of, new_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from OpenSSL import SSL

    from popd.server.tls import Served, ServerTLS

__all__ = ["pairs", "serve_names", "unfinished"]


def pairs(directory: str) -> Iterator[tuple[str, str]]:
    """Yield the certificates in a directory and their keys, as paths.

    They are ``NAME.pem``, with the certificate, those of its authorities and the key, or
    ``NAME/fullchain.pem`` and ``NAME/privkey.pem``, as ACME clients write them.  Of a directory in
    which only one of the two is, nothing is taken: it is not finished.

    :raises ValueError: the directory cannot be read.
    """
    for entry in _entries(directory):
        chain, key = _halves(entry)
        if entry.suffix == ".pem" and entry.is_file():
            yield str(entry), str(entry)
        elif chain.exists() and key.exists():
            yield str(chain), str(key)


def unfinished(directory: str) -> Iterator[tuple[str, str]]:
    """Yield where the certificate of each pair is that lacks a half, or would be, and the half.

    :raises ValueError: see `pairs`.
    """
    for entry in _entries(directory):
        chain, key = _halves(entry)
        if chain.exists() != key.exists():
            yield str(chain), str(key if chain.exists() else chain)


def _entries(directory: str) -> list[Path]:
    try:
        return sorted(Path(directory).iterdir())
    except OSError as error:
        raise ValueError(f"{directory}: cannot be read: {error.strerror}") from None


def _halves(entry: Path) -> tuple[Path, Path]:
    return entry / "fullchain.pem", entry / "privkey.pem"


def serve_names(tls: ServerTLS, directory: str) -> None:
    """Have clients that ask for a name get the certificate for it, and others the default.

    A name is looked up as it is, the default's own names included, then with ``*`` for its first
    label.  If there are several of one name they may differ in the kind of key, and else the one
    that expires last is taken.

    :param directory: see `pairs`.
    :raises ValueError: a certificate cannot be used; the text is a line that names it.
    """
    own = [name for served in tls.served for name in served.names if "*" not in name]
    chosen: dict[str, dict[str, tuple[Served, str]]] = defaultdict(dict)
    for path, key_path in pairs(directory):
        kind, served = add_certificate(new_context(), path, key_path)
        if not names_of(load_certificates(path)[0]):
            raise ValueError(f"{path}: this certificate is for no host name (subjectAltName)")
        tls.served.append(served)
        for name in served.names:
            other = chosen[name].get(kind)
            if other is None or other[0].not_after < served.not_after:
                chosen[name][kind] = served, key_path
    contexts: dict[tuple[tuple[str, str], ...], SSL.Context] = {}
    names: dict[bytes, SSL.Context] = {}
    for name, kinds in chosen.items():
        files = tuple(sorted((served.path, key_path) for served, key_path in kinds.values()))
        context = contexts.get(files)
        if context is None:
            context = contexts[files] = new_context()
            for path, key_path in files:
                add_certificate(context, path, key_path)
        names[name.encode("ascii", "ignore")] = context
    for name in own:
        names.setdefault(name.encode("ascii", "ignore"), tls.context)
    tls.contexts += contexts.values()
    tls.context.set_tlsext_servername_callback(lambda connection: _choose(connection, names))


def _choose(connection: Any, names: dict[bytes, SSL.Context]) -> None:
    name = connection.get_servername()
    if name is None:
        return
    name = name.lower()
    context = names.get(name) or names.get(b"*." + name.partition(b".")[2])
    if context is not None:
        connection.set_context(context)
