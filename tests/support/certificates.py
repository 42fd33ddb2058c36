"""Certificates for servers on this machine, made anew for each run."""

import ssl

import trustme


class Certificates:
    """An authority, and a certificate for 127.0.0.1 that it has signed."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._server = self._authority.issue_cert("127.0.0.1")

    def for_server(self, *, clients: bool = False) -> ssl.SSLContext:
        """A context for a server.

        Args:
            clients: Whether clients need a certificate, too.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server.configure_cert(context)
        if clients:
            self._authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def for_client(self, *, certificate: bool = False) -> ssl.SSLContext:
        """A context that trusts the authority.

        Args:
            certificate: Whether the client has one of its own.
        """
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        if certificate:
            self._authority.issue_cert("client@example.org").configure_cert(context)
        return context
