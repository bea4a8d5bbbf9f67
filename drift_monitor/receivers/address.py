"""Which addresses a message may be sent to. No I/O."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_NEVER = tuple(
    (ip_network(block), what)
    for block, what in (
        ("169.254.0.0/16", "a link-local address, where clouds serve credentials"),
        ("fe80::/10", "a link-local address"),
        ("fd00:ec2::/32", "an address where AWS serves credentials"),
        ("fd20:ce::254/128", "an address where Google Cloud serves credentials"),
        ("100.100.100.200/32", "an address where Alibaba Cloud serves credentials"),
        ("168.63.129.16/32", "an address where Azure serves the machine's configuration"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
        ("0.0.0.0/8", "an unspecified address"),
        ("::/128", "an unspecified address"),
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are the IPv4 address that is reached


def why_blocked(address: str, *, allow_private: bool) -> str | None:
    """Why nothing is sent to an address; None when it may be.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) is judged as that too.

    Args:
        address: as `getaddrinfo` gives it, perhaps with a zone.
        allow_private: whether loopback, private and other addresses that are not global may be reached. Cloud
            metadata, link-local, multicast and unspecified addresses never are.

    Example:
        >>> why_blocked("::ffff:169.254.169.254", allow_private=True)
        'a link-local address, where clouds serve credentials'
        >>> why_blocked("10.0.0.1", allow_private=False)
        'a private address, and allow_private is off'
        >>> why_blocked("10.0.0.1", allow_private=True) is None
        True
    """
    for ip in _meant(ip_address(address)):
        for network, what in _NEVER:
            if ip in network:
                return what
        if not allow_private and (not ip.is_global or (isinstance(ip, IPv6Address) and ip.is_site_local)):
            return "a private address, and allow_private is off"
    return None


def _meant(ip: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that it stands for."""
    if isinstance(ip, IPv4Address):
        return [ip]
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    meant: list[IPv4Address | IPv6Address] = [ip]
    if ip.sixtofour is not None:
        meant.append(ip.sixtofour)
    if ip in _NAT64 or 1 < int(ip) < 2**32:  # the latter is the old form ::a.b.c.d
        meant.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return meant
