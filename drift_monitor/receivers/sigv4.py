"""Requests to AWS, signed with Signature Version 4 by botocore, which comes with the extra `sagemaker`."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from drift_monitor.core.errors import DeliveryError

INSTALL = "pip install 'drift-monitor[sagemaker]'"


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    service: str,
    region: str,
    profile: str | None,
) -> dict[str, str]:
    """The headers that a signature adds.

    Args:
        method: in capitals.
        url: as it will be asked for, with its query.
        headers: that will be sent too; they are signed.
        body: the bytes that will be sent.
        service: that the signature is for.
        region: that the signature is for.
        profile: of the AWS configuration; None leaves it to botocore, which looks into the environment, into
            files, and asks the machine for its role.

    Raises:
        DeliveryError: reason `config`: botocore is not installed, or finds no credentials.
    """
    botocore = _botocore()
    try:
        session = botocore.session.Session(profile=profile)
        credentials = session.get_credentials()
        if credentials is None:
            raise DeliveryError("no AWS credentials found: set `profile`, or the environment's AWS_...", "config")
        request = botocore.awsrequest.AWSRequest(method=method, url=url, headers=dict(headers), data=body)
        botocore.auth.SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError) as error:
        raise DeliveryError(f"the AWS credentials cannot be used: {error}", "config") from error
    return {name: value for name, value in request.headers.items() if name not in headers}


def why_unavailable() -> str | None:
    """Why nothing can be signed, or None."""
    try:
        _botocore()
    except DeliveryError as error:
        return str(error)
    return None


def _botocore() -> ModuleType:
    try:
        import botocore  # noqa: PLC0415 (an extra)
        import botocore.auth  # noqa: PLC0415
        import botocore.awsrequest  # noqa: PLC0415
        import botocore.exceptions  # noqa: PLC0415
        import botocore.session  # noqa: PLC0415
    except ImportError:
        raise DeliveryError(f"botocore is not installed: {INSTALL}", "config") from None
    module: ModuleType = botocore
    return module
