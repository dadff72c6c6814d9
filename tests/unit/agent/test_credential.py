"""Where the agent's credential comes from, and how each missing piece is named without showing the key."""

from base64 import b64encode

import pytest

from ringfence.agent.credential import HostCredential, load_credential
from ringfence.policy.errors import OperatorError

KEY = bytes(range(32))
TEXT = b64encode(KEY).decode()
LINES = {"RINGFENCE_HOST": "h1", "RINGFENCE_HOST_KEY": TEXT}


def _write(folder, text, mode=0o600):
    path = folder / "credential"
    path.write_text(text)
    path.chmod(mode)


def test_the_environment_is_asked_first(tmp_path):
    _write(tmp_path, "RINGFENCE_HOST=h2\nRINGFENCE_HOST_KEY=no\n")
    assert load_credential(tmp_path, LINES) == HostCredential("h1", KEY)


@pytest.mark.parametrize("form", ["{}={}\n", "export {}='{}'\n"])
def test_a_file_holds_what_host_add_prints(tmp_path, form):
    _write(tmp_path, "".join(form.format(name, value) for name, value in LINES.items()))
    assert load_credential(tmp_path, {}) == HostCredential("h1", KEY)


@pytest.mark.parametrize(
    ("environment", "text", "mode", "words"),
    [
        ({}, None, 0, "ringfence host token NAME"),
        ({"RINGFENCE_HOST": "h1"}, None, 0, "RINGFENCE_HOST_KEY is not"),
        ({"RINGFENCE_HOST_KEY": TEXT}, None, 0, "RINGFENCE_HOST is not"),
        ({}, f"RINGFENCE_HOST=h1\nRINGFENCE_HOST_KEY={TEXT}", 0o640, "chmod 600"),
        ({}, "RINGFENCE_HOST=h1\n", 0o600, "expected the lines"),
        (LINES | {"RINGFENCE_HOST": "h 1"}, None, 0, "host name"),
        (LINES | {"RINGFENCE_HOST_KEY": "!"}, None, 0, "the environment"),
        (LINES | {"RINGFENCE_HOST_KEY": TEXT[:20]}, None, 0, "15 bytes in base64, expected 32"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path, environment, text, mode, words):
    if text is not None:
        _write(tmp_path, text, mode)
    with pytest.raises(OperatorError) as refused:
        load_credential(tmp_path, environment)
    assert words in str(refused.value)
    assert TEXT[:20] not in str(refused.value)


def test_the_key_is_not_shown_when_a_credential_is_printed():
    assert "x" * 8 not in repr(HostCredential("h1", b"x" * 32))
