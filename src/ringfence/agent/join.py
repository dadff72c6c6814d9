"""Registers this host with a server: a token proves that an operator wants it, and the host registers its own key.

Input: the server's address, the token, the agent's folder. Output: the file ``credential`` there, written last: a host
that has it has joined. Until then the key is in ``credential.joining``, so that the same command, repeated after it was
interrupted anywhere, sends the same key and gets the same answer.
"""

import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes
from typing import Final

from ringfence.agent.credential import Damaged, HostCredential, load_credential, render_credential
from ringfence.agent.doors.files import SystemFiles, lock_folder
from ringfence.agent.http import is_success, message_of, network_errors, open_client, trust
from ringfence.policy.errors import OperatorError
from ringfence.policy.values import HostName
from ringfence.wire.hostauth import KEY_SIZE_BYTES, derive_public_key
from ringfence.wire.join import JOIN_PATH, JoinRequest, JoinToken, encode_join, fingerprint_of, parse_token

_STEP: Final = "join the server"


async def join_server(address: str, text: str, folder: Path) -> HostName:
    """The name under which this host has joined; its credential is in ``folder`` then.

    Raises:
        Invalid: ``text`` is no token.
        OperatorError: the server cannot be reached, is not the token's, or does not accept it; or an agent runs with
            the folder, or the folder is another host's.
    """
    token = parse_token(text)
    files = SystemFiles()
    with lock_folder(folder):
        present = _load(folder, "credential")
        if present is not None and present.host != token.host:
            reason = (
                f"{folder} is that of host {present.host}, and the token is for {token.host}: choose another --data"
            )
            raise OperatorError(_STEP, reason)
        begun = _begin(files, folder, token, present)
        ca = await _fetch_ca(address, token.fingerprint) if token.fingerprint and _is_tls(address) else None
        # A token that is spent may have been so by the key that is here: then this was said once more after it ended.
        wanted = [replace(one, server=address, ca=ca) for one in (begun, present) if one is not None]
        joined = await _register(wanted, token)
        files.replace(folder / "credential", render_credential(joined))
        files.remove(folder / "credential.joining")
    return token.host


def _begin(files: SystemFiles, folder: Path, token: JoinToken, present: HostCredential | None) -> HostCredential:
    """The key to join with: that of an earlier try for the same host, or a new one, saved before it is sent."""
    begun = _load(folder, "credential.joining")
    is_ended = begun is not None and present is not None and begun.private_key == present.private_key
    if begun is not None and begun.host == token.host and not is_ended:
        return begun
    made = HostCredential(token.host, token_bytes(KEY_SIZE_BYTES))
    files.replace(folder / "credential.joining", render_credential(made))
    return made


def _load(folder: Path, name: str) -> HostCredential | None:
    """The credential in a file; None when there is none, or it was damaged: joining is what mends that."""
    try:
        return load_credential(folder, {}, name=name) if (folder / name).exists() else None
    except Damaged:
        return None


async def _fetch_ca(address: str, fingerprint: str) -> bytes:
    """The server's CA, in DER, if it is the token's. No secret is sent: the server has not been verified yet."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    async with open_client(address, lambda: unverified) as client:
        with network_errors(f"{_STEP} at {address}"):
            answer = await client.request("GET", JOIN_PATH)
    try:
        ca = ssl.PEM_cert_to_DER_cert(answer.content.decode(errors="replace"))
    except ValueError as error:
        reason = f"the server at {address} has no CA of its own, the token's has one; nothing was told to it"
        raise OperatorError(_STEP, reason) from error
    if fingerprint_of(ca) != fingerprint:
        reason = f"the server at {address} is not the token's: its CA is another; nothing was told to it"
        raise OperatorError(_STEP, reason)
    return ca


async def _register(wanted: Sequence[HostCredential], token: JoinToken) -> HostCredential:
    """The first of ``wanted`` whose key the server takes with this token. Raises ``OperatorError`` if it takes none."""
    address, ca = wanted[0].server or "", wanted[0].ca
    refusals = []
    async with open_client(address, lambda: trust(ca)) as client:
        for one in wanted:
            body = encode_join(JoinRequest(token.host, token.secret, derive_public_key(one.private_key)))
            with network_errors(f"{_STEP} at {address}"):
                answer = await client.request("POST", JOIN_PATH, content=body)
            if is_success(answer):
                return one
            refusals.append(f"the server answered {answer.status}: {message_of(answer)}")
    raise OperatorError(_STEP, refusals[0])


def _is_tls(address: str) -> bool:
    return address.startswith("https:")
