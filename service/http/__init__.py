"""What travels over HTTP: routes, negotiation, uploads, problems, the pages for people."""
