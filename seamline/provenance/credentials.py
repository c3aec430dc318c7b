"""Content Credentials (C2PA), validated without network: their state, and what they claim."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from .fact import SOURCE_TYPES, Fact

MOST_MANIFEST = 16 * 2**20  # characters of JSON that are read

STATES = {
    "absent": "the file carries none; most do not, and services strip them",
    "trusted": "the file is as it was signed, and the signer is one of those trusted here",
    "untrusted": "the file is as it was signed, but the signer is not one trusted here: anybody can sign like that",
    "invalid": "the file was changed after it was signed, or the signature is broken",
    "unchecked": "they could not be checked: install the extra, pip install 'seamline[provenance]'",
    "unreadable": "they cannot be read",
}


def credentials(file: BinaryIO, mime: str, trust: str | None) -> list[Fact]:
    """Content Credentials (C2PA), validated without network: their state, and what they claim."""

    def state(name: str, note: str = "", odd: bool = False) -> list[Fact]:
        return [Fact("content credentials", "state", name, note or STATES[name], odd)]

    try:
        import c2pa  # type: ignore[import-untyped]
    except ImportError:
        return state("unchecked" if _mentions_credentials(file) else "absent")
    if mime not in c2pa.Reader.get_supported_mime_types():
        return state("absent", f"none can be in a file of this kind ({mime or 'unknown'})")
    anchors = {"trust": {"trust_anchors": trust}} if trust else {}
    offline = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
    file.seek(0)
    try:
        context = c2pa.Context.from_dict(offline | anchors)
        with c2pa.Reader(mime, file, context=context) as reader:
            text, found = reader.json(), str(reader.get_validation_state())
        if len(text) > MOST_MANIFEST:
            return state("unreadable", f"they take {len(text)} characters, more than are read", odd=True)
        data = json.loads(text)
        manifest = data["manifests"][data["active_manifest"]]
    except c2pa.C2paError as cause:
        name = type(cause).__name__
        if "ManifestNotFound" in name:
            return state("absent")
        if "RemoteManifest" in name:
            return state("unchecked", "they lie on a server, which is not asked")
        return state("unreadable", f"they cannot be read: {str(cause)[:200]}", odd=True)
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        return state("unreadable", f"they cannot be read: {cause!r:.200}", odd=True)
    name = {"Trusted": "trusted", "Valid": "untrusted"}.get(found, "invalid")
    facts = state(name, odd=name == "invalid")

    def tell(key: str, value: object, note: str = "", odd: bool = False) -> None:
        if value:
            facts.append(Fact("content credentials", key, str(value), note, odd))

    failures = [str(item.get("code")) for item in data.get("validation_status") or () if isinstance(item, dict)]
    tell("failures", ", ".join(code for code in failures if code != "signingCredential.untrusted"))
    signed = manifest.get("signature_info") or {}
    tell("signer", ", ".join(str(signed[key]) for key in ("common_name", "issuer") if signed.get(key)))
    tell("signed_at", signed.get("time"))
    tools = [
        " ".join(str(tool.get(k, "")) for k in ("name", "version")) for tool in _dicts(manifest, "claim_generator_info")
    ]
    tell("made_with", ", ".join(tools))
    actions, sources = [], []
    for assertion in _dicts(manifest, "assertions"):
        for action in _dicts(assertion.get("data"), "actions"):
            actions.append(str(action.get("action")).removeprefix("c2pa."))
            sources.append(str(action.get("digitalSourceType") or "").rsplit("/", 1)[-1])
    tell("actions", ", ".join(dict.fromkeys(actions)), "what was done, as the signer says")
    for source in dict.fromkeys(filter(None, sources)):
        tell("source_type", source, SOURCE_TYPES.get(source, ""), odd="rainedAlgorithmicMedia" in source)
    tell("ingredients", len(_dicts(manifest, "ingredients")), "other files that went into it, as the signer says")
    return facts


def _dicts(parent: object, key: str) -> list[dict[str, Any]]:
    """The dicts in a list of untrusted JSON; whatever else is there is left out."""
    found = parent.get(key) if isinstance(parent, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _mentions_credentials(file: BinaryIO) -> bool:
    """Whether the marks of a C2PA manifest store are near the beginning of a file."""
    file.seek(0)
    head = file.read(4 * 2**20)
    return b"jumb" in head and b"c2pa" in head
