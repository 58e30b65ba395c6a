"""TLS between sites and aggregator, with certificates that the operator gives: contexts, and what errors mean."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_HOST_MISMATCH, _ADDRESS_MISMATCH = 62, 64  # X509_V_ERR_… of OpenSSL
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_CERTIFICATE = (
    "it does not take this site's certificate: have one signed by the CA that the aggregator was given"
)
# What the other side's alert, or its speaking no TLS, tells a site to do; by a part of OpenSSL's name for it.
_ADVICE: Final = {
    "CERTIFICATE_REQUIRED": "it wants a certificate of this site: give --tls-cert and --tls-key",
    "HANDSHAKE_FAILURE": "it may want a certificate of this site: give --tls-cert and --tls-key",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: give its address as http://, or start it with --tls-cert",
    "PROTOCOL": "it speaks no version of TLS from 1.2 on",
    "CERTIFICATE": _OTHER_CERTIFICATE,
    "UNKNOWN_CA": _OTHER_CERTIFICATE,
    "ACCESS_DENIED": _OTHER_CERTIFICATE,
}


class TlsError(ValueError):
    """Certificates or a key that cannot be used; the text names the file and what to do."""


def make_server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """What the aggregator serves with; given a `client_ca`, only to sites with a certificate of it.

    Raises TlsError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_pair(context, certificate, key)
    if client_ca is not None:
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def make_client_context(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """What a site connects with: trusts `ca` alone, or what the system trusts, and checks the host's name.

    Raises TlsError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.load_default_certs()
    else:
        _trust(context, ca)
    if certificate is not None and key is not None:
        _load_pair(context, certificate, key)
    return context


def explain_failure(error: BaseException, host: str) -> str:
    """Say why `host` cannot be spoken to and what to do; empty where trying again may help."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, host)
    if isinstance(error, ssl.SSLError):
        for part, advice in _ADVICE.items():
            if part in (error.reason or ""):
                return f"no TLS with {host} ({name_failure(error)}): {advice}"
    return ""


def _explain_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in (_HOST_MISMATCH, _ADDRESS_MISMATCH):
        return (
            f"the aggregator's certificate is not one for {host}: give its address with a name that the certificate "
            f"holds, or have one made with {host} as subjectAltName"
        )
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"the aggregator's certificate is not valid now ({error.verify_message}): have it renewed, or set this "
            "machine's clock"
        )
    return (
        f"the aggregator's certificate is not trusted ({error.verify_message}): give the certificate of the CA that "
        "signed it as --ca, if you know that it is the right one"
    )


def name_failure(error: OSError) -> str:
    """OpenSSL's own words, without the place in its sources."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason.lower().replace("_", " ") if reason else type(error).__name__


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    if "CERTIFICATE-----" not in _read(certificate):
        raise TlsError(f"{certificate} holds no certificate in PEM form")
    text = _read(key)
    if "PRIVATE KEY-----" not in text:
        raise TlsError(f"{key} holds no private key in PEM form")
    if "ENCRYPTED" in text:
        raise TlsError(
            f"{key} is encrypted: write it out without a passphrase (openssl pkey -in {key} -out …)"
        )
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # nobody is there to be asked for one
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(
                f"{key} is not the key of {certificate}: give the two that belong together"
            ) from error
        raise TlsError(f"{certificate} and {key} cannot be used: {error}") from error


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    _read(ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TlsError(f"{ca} holds no certificate in PEM form") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}") from error
