"""Who may talk to whom between hosts: the cluster secret and what is derived from it, certificates, and the handshake."""
